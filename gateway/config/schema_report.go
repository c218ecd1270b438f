package config

// The file's shape, part four: how what is read is published.

type fileTelemetry struct {
	block
	publish text
	payload text
	uns     text
	labels  dict[label]
}

const unsTemplate = "{enterprise}/{site}/{area}/{line}/{cell}/{device}/{tag}"

func (t *fileTelemetry) keys() []key {
	return []key{
		{name: "publish", into: &t.publish, def: "per_group", oneOf: []string{"per_group", "per_tag", "uns"},
			doc: "per_group: a message for each poll of a group, at `hg/{gateway}/{device}/{group}`. per_tag: one for each tag, at `hg/{gateway}/{device}/{group}/{tag}`. uns: one for each tag at a topic of the plant, retained."},
		{name: "payload", into: &t.payload, def: "json", oneOf: []string{"json", "cbor"}, doc: "How it is written."},
		{name: "uns", into: &t.uns, def: unsTemplate,
			doc: "The topic with publish: uns, of labels, {gateway}, {device}, {group} and {tag}. A send route and rules must let it leave."},
		{name: "labels", into: &t.labels, doc: "Labels of all devices: `{enterprise: acme, site: north}`."},
	}
}

// fileReport is the keys by which tags are reported, of a device and of a tag.
type fileReport struct {
	when        text
	deadband    number
	percent     number
	heartbeat   span
	minInterval span
}

func (r *fileReport) keys() []key {
	return []key{
		{name: "report", into: &r.when, oneOf: []string{"always", "change", "change+heartbeat"},
			doc: "When a value that was read is published. The first value and each change of quality always are. Default: change+heartbeat for bool, bit, string, tags with labels and those with a deadband; otherwise always."},
		{name: "deadband", into: &r.deadband, doc: "A number changed when it is further than this from what was published last. Default: 0."},
		{name: "deadband_percent", into: &r.percent, doc: "The same in percent of the tag's range."},
		{name: "heartbeat", into: &r.heartbeat, min: "1s", max: "30d", doc: "With change+heartbeat: after so long it is published without a change. Default: 15m."},
		{name: "min_interval", into: &r.minInterval, max: "30d", doc: "Least time between two messages of a tag, but for changes of quality. Default: 0."},
	}
}
