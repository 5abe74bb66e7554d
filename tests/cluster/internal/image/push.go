package image

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// credentials are those that "docker login" and the like have stored.
func credentials() remote.Option { return remote.WithAuthFromKeychain(authn.DefaultKeychain) }

func parseReference(reference string, plainHTTP bool) (name.Reference, error) {
	if plainHTTP {
		return name.ParseReference(reference, name.Insecure)
	}
	return name.ParseReference(reference)
}

// Push uploads the image to the registry that its reference names.
func Push(built v1.Image, reference string, plainHTTP bool) error {
	parsed, err := parseReference(reference, plainHTTP)
	if err != nil {
		return err
	}
	return remote.Write(parsed, built, credentials())
}

// titleAnnotation names the file that a layer of an artifact is.
const titleAnnotation = "org.opencontainers.image.title"

// Artifact describes files that are stored in a registry, one layer each.
type Artifact struct {
	Files []string
	// Type says what the files are together, MediaType what each of them is.
	Type, MediaType string
	Annotations     map[string]string
}

// artifactManifest is an OCI image manifest with the field that upstream's type lacks.
type artifactManifest struct {
	v1.Manifest
	ArtifactType string `json:"artifactType"`
}

func (m artifactManifest) RawManifest() ([]byte, error)        { return json.Marshal(m) }
func (m artifactManifest) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// PushArtifact uploads files as ORAS does, and returns the digest of the manifest.
func PushArtifact(artifact Artifact, reference string, plainHTTP bool) (v1.Hash, error) {
	parsed, err := parseReference(reference, plainHTTP)
	if err != nil {
		return v1.Hash{}, err
	}
	config := static.NewLayer([]byte("{}"), "application/vnd.oci.empty.v1+json")
	manifest := artifactManifest{ArtifactType: artifact.Type, Manifest: v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Annotations: artifact.Annotations,
	}}
	upload := func(layer v1.Layer) (v1.Descriptor, error) {
		if err := remote.WriteLayer(parsed.Context(), layer, credentials()); err != nil {
			return v1.Descriptor{}, err
		}
		return describe(layer)
	}
	if manifest.Config, err = upload(config); err != nil {
		return v1.Hash{}, err
	}
	for _, file := range artifact.Files {
		layer, err := openFileLayer(file, types.MediaType(artifact.MediaType))
		if err != nil {
			return v1.Hash{}, err
		}
		descriptor, err := upload(layer)
		if err != nil {
			return v1.Hash{}, err
		}
		descriptor.Annotations = map[string]string{titleAnnotation: filepath.Base(file)}
		manifest.Layers = append(manifest.Layers, descriptor)
	}
	if err := remote.Put(parsed, manifest, credentials()); err != nil {
		return v1.Hash{}, err
	}
	raw, err := manifest.RawManifest()
	if err != nil {
		return v1.Hash{}, err
	}
	digest, _, err := v1.SHA256(bytes.NewReader(raw))
	return digest, err
}

func describe(layer v1.Layer) (descriptor v1.Descriptor, err error) {
	if descriptor.Digest, err = layer.Digest(); err != nil {
		return descriptor, err
	}
	if descriptor.Size, err = layer.Size(); err != nil {
		return descriptor, err
	}
	descriptor.MediaType, err = layer.MediaType()
	return descriptor, err
}

// fileLayer is a file as it is, read anew for each use: models do not fit into memory.
type fileLayer struct {
	path      string
	mediaType types.MediaType
	digest    v1.Hash
	size      int64
}

func openFileLayer(path string, mediaType types.MediaType) (*fileLayer, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	digest, size, err := v1.SHA256(file)
	return &fileLayer{path, mediaType, digest, size}, err
}

func (l *fileLayer) Digest() (v1.Hash, error)             { return l.digest, nil }
func (l *fileLayer) DiffID() (v1.Hash, error)             { return l.digest, nil }
func (l *fileLayer) Compressed() (io.ReadCloser, error)   { return os.Open(l.path) }
func (l *fileLayer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.path) }
func (l *fileLayer) Size() (int64, error)                 { return l.size, nil }
func (l *fileLayer) MediaType() (types.MediaType, error)  { return l.mediaType, nil }
