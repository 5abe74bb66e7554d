package main

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/perennial-dev/perennial/tests/cluster/internal/objects"
)

// runObjects serves the object store of a directory over plain HTTP.
func runObjects() int {
	flags := flag.NewFlagSet("objects", flag.ExitOnError)
	address := flags.String("address", "127.0.0.1:5002", "address to listen on")
	directory := flags.String("directory", "objects", "where to keep buckets")
	flags.Parse(os.Args[1:]) //nolint:errcheck // exits on error

	handler, err := objects.New(*directory)
	if err != nil {
		fmt.Fprintln(os.Stderr, "objects:", err)
		return 1
	}
	server := http.Server{Addr: *address, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	fmt.Fprintln(os.Stderr, "objects:", server.ListenAndServe())
	return 1
}
