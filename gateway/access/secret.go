package access

import "github.com/headgate-io/headgate/gateway/mqtt"

// A Secret is bytes that no printing, logging or encoding shows. It converts
// from and to []byte; whoever does that takes care of them.
type Secret = mqtt.Secret
