// Command etcd is etcd's own server, built here so that Triarch can be held
// against it. Nothing of Triarch is in it.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
