package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/gateway/pki"
	"github.com/spf13/cobra"
)

// connection holds the flags that pub and sub share, named as mosquitto names
// them.
type connection struct {
	host, id, user, password string
	port, keepAlive          int
	caFile, cert, key        string
	version                  string
	plaintext                bool
	config                   *string
}

func connectionFlags(cmd *cobra.Command) *connection {
	c := &connection{}
	f := cmd.Flags()
	f.Bool("help", false, "help for "+cmd.Name()) // -h is the host, as everywhere in MQTT
	f.StringVarP(&c.host, "host", "h", "localhost", "broker's host name or address")
	f.IntVarP(&c.port, "port", "p", 0, "broker's port (default: the configuration's, else 8883, or 1883 with --plaintext)")
	f.StringVarP(&c.id, "id", "i", "", "client id (default: given by the broker)")
	f.StringVarP(&c.user, "username", "u", "", "user name")
	f.StringVarP(&c.password, "pw", "P", "", "password; other processes can see it: a client certificate is better")
	f.IntVarP(&c.keepAlive, "keepalive", "k", 60, "keep-alive in seconds")
	f.StringVar(&c.caFile, "cafile", "", "CA of the broker's certificate (default: pki/ca.crt beside the configuration or below gateway.data)")
	f.StringVar(&c.cert, "cert", "", "client certificate")
	f.StringVar(&c.key, "key", "", "key of the client certificate")
	f.StringVarP(&c.version, "protocol-version", "V", "mqttv5", "mqttv5 or mqttv311")
	f.BoolVar(&c.plaintext, "plaintext", false, "without TLS")
	c.config = configFlag(cmd)
	return c
}

// dial connects; o brings what the verb itself wants.
func (c *connection) dial(ctx context.Context, o client.Options) (*client.Client, error) {
	switch c.version {
	case "mqttv5", "5":
		o.Version = mqtt.V5
	case "mqttv311", "311":
		o.Version = mqtt.V311
	default:
		return nil, usageError{errors.New("-V is mqttv5 or mqttv311")}
	}
	port := c.port
	if port == 0 {
		port = c.findPort()
	}
	o.Address = net.JoinHostPort(c.host, strconv.Itoa(port))
	o.ClientID, o.Username = c.id, c.user
	o.KeepAlive = time.Duration(c.keepAlive) * time.Second
	if c.password != "" {
		o.Password = []byte(c.password)
	}
	if !c.plaintext {
		var err error
		if o.TLS, err = c.tls(); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return client.Dial(ctx, o)
}

// findPort is that of the gateway on this machine, or else the usual one.
func (c *connection) findPort() int {
	if cfg, err := loadConfig(*c.config); err == nil && (c.host == "localhost" || c.host == "127.0.0.1") {
		for _, l := range cfg.Broker.Listeners {
			_, text, _ := net.SplitHostPort(l.Address) // checked by Load
			if port, err := strconv.Atoi(text); err == nil && l.Plaintext == c.plaintext {
				return port
			}
		}
	}
	if c.plaintext {
		return 1883
	}
	return 8883
}

func (c *connection) tls() (*tls.Config, error) {
	files := pki.ClientFiles{CA: c.caFile, Certificate: c.cert, Key: c.key}
	if files.CA == "" {
		files.CA = findCA(*c.config)
	}
	if files.CA == "" {
		return nil, usageError{errors.New("no CA is known to verify the broker by: give --cafile")}
	}
	return pki.Client(files)(c.host)
}

// findCA looks where init and the first start put the local CA; "" if nowhere.
func findCA(config string) string {
	places := []string{filepath.Join(filepath.Dir(configPath(config)), "pki", pki.CACertificate)}
	if cfg, err := loadConfig(config); err == nil {
		places = append(places, filepath.Join(cfg.Gateway.Data, "pki", pki.CACertificate))
	}
	for _, p := range places {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return ""
}
