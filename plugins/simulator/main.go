// Simulator is a plugin without a device behind it: four tags that move as a
// plant's do. It is what the demo reads, what tests read, and an example of a
// plugin with several groups and commands.
//
//	devices:
//	  - id: boiler
//	    adapter: simulator
//	    settings:
//	      interval: 1s                # of group process; group status is five times slower
//	      tags: [temperature, valve]  # default: all
//	      seed: 7                     # of the noise; the same seed makes the same noise
//	      unplugged: /tmp/unplugged   # while this file exists the device is unreachable
package main

import "github.com/headgate-io/headgate/plugins/sdk"

func main() {
	sdk.Serve("simulator", newAdapter)
}
