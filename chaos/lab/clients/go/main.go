// Uses of an etcd cluster by the Go client, with its concurrency package.
//
// Each case is a line: "case NAME ok FIGURES" or "case NAME FAILED: WHY"; the
// exit code is 1 when one failed. "uses" are a client's ordinary requests;
// "mutex" and "election" run for a while beside whoever kills the cluster's
// leaders, and check that at no time two sessions held what one may hold.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

var (
	endpoints = flag.String("endpoints", "", "addresses, comma separated")
	caFile    = flag.String("cacert", "", "authority of the servers' certificates")
	certFile  = flag.String("cert", "", "client certificate")
	keyFile   = flag.String("key", "", "its key")
	seconds   = flag.Int("seconds", 15, "how long mutex and election run")
)

// A request that takes longer has failed.
const patience = 30 * time.Second

type testCase struct {
	name string
	run  func(context.Context) (string, error)
}

func connect() (*clientv3.Client, error) {
	config := clientv3.Config{
		Endpoints:            strings.Split(*endpoints, ","),
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    2 * time.Second,
		DialKeepAliveTimeout: 2 * time.Second,
		Logger:               zap.NewNop(),
	}
	if *caFile != "" {
		pair, err := tls.LoadX509KeyPair(*certFile, *keyFile)
		if err != nil {
			return nil, err
		}
		pem, err := os.ReadFile(*caFile)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, errors.New("no certificate in " + *caFile)
		}
		config.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool}
	}
	return clientv3.New(config)
}

func main() {
	flag.Parse()
	var cases []testCase
	switch flag.Arg(0) {
	case "uses":
		cases = uses
	case "mutex":
		cases = []testCase{{"mutex_is_held_by_one_session_at_a_time", mutex}}
	case "election":
		cases = []testCase{{"election_has_one_leader_at_a_time", election}}
	default:
		fmt.Fprintln(os.Stderr, "usage: etcd-clients FLAGS uses|mutex|election")
		os.Exit(2)
	}
	failed := false
	for _, c := range cases {
		ctx, cancel := context.WithTimeout(context.Background(), patience+time.Duration(*seconds)*time.Second)
		figures, err := c.run(ctx)
		cancel()
		if err != nil {
			failed = true
			fmt.Printf("case %s FAILED: %v\n", c.name, err)
			continue
		}
		fmt.Println(strings.TrimSpace(fmt.Sprintf("case %s ok %s", c.name, figures)))
	}
	if failed {
		os.Exit(1)
	}
}
