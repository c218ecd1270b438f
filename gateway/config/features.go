package config

// unavailable lists what the format has and this version does not do. Such a
// setting is refused, because ignoring it would be a lie. Whoever implements
// one deletes its row.
var unavailable = []struct {
	key     string // as in the reference
	setting string // what is not available
	instead string
	used    func(*file) []place
}{
	{"devices[].profile", "profile", "remove it and write groups and tags here",
		ofDevices(func(d *fileDevice) []place { return when(d.profile.good(), d.profile.at) })},
}

func when(used bool, at place) []place {
	if used {
		return []place{at}
	}
	return nil
}

func ofDevices(used func(*fileDevice) []place) func(*file) []place {
	return func(f *file) (all []place) {
		for _, d := range f.devices.items {
			all = append(all, used(d)...)
		}
		return all
	}
}

// refuseUnavailable reports every setting that this version does not do.
func (f *file) refuseUnavailable(rep *report) {
	for _, u := range unavailable {
		for _, at := range u.used(f) {
			rep.add(at, u.instead, "%s is not available in this version", u.setting)
		}
	}
}
