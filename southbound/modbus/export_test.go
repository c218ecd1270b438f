package modbus

// Renew takes every unit for new, so that none is left alone.
func (b *Bus) Renew() { b.renew() }
