// Package registry is an OCI registry for tests: upstream's in-memory registry, made to
// remember across restarts, to serve parts of blobs as real registries do, and to serve
// some of them slowly.
package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	upstream "github.com/google/go-containerregistry/pkg/registry"
)

const (
	// SlowPrefix begins the names of repositories whose blobs come at SlowRate, so that a
	// test can do something while a download runs.
	SlowPrefix = "slow/"
	// SlowRate is in bytes per second, for each response.
	SlowRate = 4 << 20
)

// blobPath takes apart the path that a blob is read from.
var blobPath = regexp.MustCompile(`^/v2/(.+)/blobs/sha256:([0-9a-f]{64})$`)

// change is a manifest written or deleted, as it is remembered.
type change struct {
	Method, Path, ContentType string
	Body                      []byte
}

type handler struct {
	upstream http.Handler
	// directory holds blobs, by algorithm and digest, and the journal of the manifests.
	directory string
	writing   sync.Mutex
	journal   *os.File
}

// New serves the registry that the directory holds, which is made when it is not there.
func New(directory string) (http.Handler, error) {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return nil, err
	}
	h := &handler{directory: directory, upstream: upstream.New(
		upstream.WithReferrersSupport(true),
		upstream.WithBlobHandler(upstream.NewDiskBlobHandler(directory)),
	)}
	journal, err := os.OpenFile(filepath.Join(directory, "manifests.jsonl"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	h.journal = journal
	return h, h.replay()
}

// replay tells upstream all that was remembered.
func (h *handler) replay() error {
	for decoder := json.NewDecoder(h.journal); ; {
		var remembered change
		if err := decoder.Decode(&remembered); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil // a registry that was killed may have left half a line
		} else if err != nil {
			return fmt.Errorf("reading %s: %w", h.journal.Name(), err)
		}
		request := httptest.NewRequest(remembered.Method, remembered.Path, bytes.NewReader(remembered.Body))
		request.Header.Set("Content-Type", remembered.ContentType)
		h.upstream.ServeHTTP(httptest.NewRecorder(), request)
	}
}

func (h *handler) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	found := blobPath.FindStringSubmatch(request.URL.Path)
	reads := request.Method == http.MethodGet || request.Method == http.MethodHead
	switch {
	case found != nil && reads:
		h.serveBlob(response, request, found[1], found[2])
	case strings.Contains(request.URL.Path, "/manifests/") && !reads:
		h.changeManifest(response, request)
	default:
		h.upstream.ServeHTTP(response, request)
	}
}

// serveBlob answers every kind of range, of which upstream knows only the closed one.
func (h *handler) serveBlob(response http.ResponseWriter, request *http.Request, repository, digest string) {
	blob, err := os.Open(filepath.Join(h.directory, "sha256", digest))
	if err != nil {
		h.upstream.ServeHTTP(response, request) // which knows how to say so
		return
	}
	defer blob.Close()
	response.Header().Set("Content-Type", "application/octet-stream")
	response.Header().Set("Docker-Content-Digest", "sha256:"+digest)
	if strings.HasPrefix(repository, SlowPrefix) {
		response = &slowWriter{response}
	}
	http.ServeContent(response, request, "", time.Time{}, blob)
}

func (h *handler) changeManifest(response http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	line, err := json.Marshal(change{request.Method, request.URL.Path, request.Header.Get("Content-Type"), body})
	if err == nil {
		h.writing.Lock()
		_, err = h.journal.Write(append(line, '\n'))
		h.writing.Unlock()
	}
	if err != nil {
		http.Error(response, err.Error(), http.StatusInternalServerError)
		return
	}
	request.Body = io.NopCloser(bytes.NewReader(body))
	h.upstream.ServeHTTP(response, request)
}

// slowWriter passes on SlowRate bytes per second.
type slowWriter struct{ http.ResponseWriter }

func (w *slowWriter) Write(data []byte) (int, error) {
	const portion = SlowRate / 64
	written := 0
	for len(data) > 0 {
		next := min(portion, len(data))
		n, err := w.ResponseWriter.Write(data[:next])
		written += n
		if err != nil {
			return written, err
		}
		data = data[next:]
		time.Sleep(time.Second * time.Duration(next) / SlowRate)
	}
	return written, nil
}
