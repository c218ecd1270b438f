package demo

import (
	"context"
	"fmt"
	"time"
)

// tell watches, and cuts and mends the cable: by itself, or as Keys say.
func (s *story) tell(ctx context.Context) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	cutAt, mendAt, endAt := s.script()
	wasThere := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case key := <-s.Keys:
			switch key {
			case 'c':
				s.flip()
			case 'q', 3, 4: // Ctrl-C and Ctrl-D where the terminal hands them over raw
				return nil
			}
		case now := <-tick.C:
			if _, _, first, _, _ := s.cloud.tally.snapshot(); !first.IsZero() && !wasThere {
				wasThere = true
				s.say("the first reading is in the cloud after %.1f s", first.Sub(s.began).Seconds())
			}
			at := now.Sub(s.began)
			if s.Keys == nil && cutAt > 0 && at >= cutAt {
				cutAt = 0
				s.flip()
			}
			if s.Keys == nil && mendAt > 0 && at >= mendAt {
				mendAt = 0
				s.flip()
			}
			if endAt > 0 && at >= endAt {
				return nil
			}
			s.line()
		}
	}
}

// script says when to cut, mend and end. Without keys and without a time the
// story is told once.
func (s *story) script() (cut, mend, end time.Duration) {
	end = s.For
	if end == 0 && s.Keys == nil {
		end = 30 * time.Second
	}
	return end * 3 / 10, end * 6 / 10, end
}

func (s *story) flip() {
	if s.cable.isCut() {
		s.cable.plug()
		s.say("the link is back: the backlog drains")
	} else {
		s.cable.pull()
		s.say("the link is cut: readings wait on disk")
	}
}

// say tells one event on a line of its own.
func (s *story) say(format string, args ...any) {
	end := "\n"
	if s.Width > 0 {
		fmt.Fprint(s.Out, "\r\x1b[K")
		end = "\r\n" // the terminal is raw
	}
	fmt.Fprintf(s.Out, "%5.1f s  %s%s", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...), end)
}

// line shows where everything stands, over the line before.
func (s *story) line() {
	if s.Width <= 0 {
		return
	}
	st := s.gateway.Status()
	arrived, _, _, topic, payload := s.cloud.tally.snapshot()
	link := "cut"
	var waiting uint64
	if len(st.Links) > 0 {
		waiting = st.Links[0].Waiting
		if st.Links[0].Connected {
			link = "up"
		} else if !s.cable.isCut() {
			link = "coming back"
		}
	}
	text := fmt.Sprintf("%5.1f s  stored %d   waiting %d   link %s   in the cloud %d   %s %s",
		time.Since(s.began).Seconds(), st.Queue.Last, waiting, link, arrived, topic, payload)
	if len(text) >= s.Width {
		text = text[:s.Width-1]
	}
	fmt.Fprintf(s.Out, "\r\x1b[K%s", text)
}
