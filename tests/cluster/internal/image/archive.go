package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Save writes the image as an OCI archive: an image layout in a tar file. It also has the
// one file more that "docker load" looks for. The same image gives the same bytes.
func Save(built v1.Image, reference, archive string) error {
	tag, err := name.NewTag(reference)
	if err != nil {
		return err
	}
	file, err := os.Create(archive)
	if err != nil {
		return err
	}
	defer file.Close() // reported below where all went well
	if err := writeArchive(file, built, tag); err != nil {
		return err
	}
	return file.Close()
}

func writeArchive(output io.Writer, built v1.Image, tag name.Tag) error {
	descriptor, err := partial.Descriptor(built)
	if err != nil {
		return err
	}
	manifest, err := built.Manifest()
	if err != nil {
		return err
	}
	layers, err := built.Layers()
	if err != nil {
		return err
	}
	rawManifest, err := built.RawManifest()
	if err != nil {
		return err
	}
	rawConfig, err := built.RawConfigFile()
	if err != nil {
		return err
	}
	descriptor.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
	descriptor.Annotations = map[string]string{
		"io.containerd.image.name":          familiarName(tag),
		"org.opencontainers.image.ref.name": tag.TagStr(),
	}
	dockerEntry := map[string]any{
		"Config": blobName(manifest.Config.Digest), "RepoTags": []string{familiarName(tag)},
	}
	layerNames := []string{}
	for _, layer := range manifest.Layers {
		layerNames = append(layerNames, blobName(layer.Digest))
	}
	dockerEntry["Layers"] = layerNames

	written := tar.NewWriter(output)
	for _, document := range []struct {
		name    string
		content any
	}{
		{"oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"}},
		{"index.json", v1.IndexManifest{
			SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{*descriptor}}},
		{"manifest.json", []any{dockerEntry}},
		{blobName(descriptor.Digest), json.RawMessage(rawManifest)},
		{blobName(manifest.Config.Digest), json.RawMessage(rawConfig)},
	} {
		content, raw := document.content.(json.RawMessage)
		if !raw {
			if content, err = json.Marshal(document.content); err != nil {
				return err
			}
		}
		if err := writeFile(written, "/"+document.name, 0o644, int64(len(content)), bytes.NewReader(content)); err != nil {
			return err
		}
	}
	for i, layer := range layers {
		stream, err := layer.Compressed()
		if err != nil {
			return err
		}
		err = writeFile(written, "/"+layerNames[i], 0o644, manifest.Layers[i].Size, stream)
		if err := stream.Close(); err != nil {
			return err
		}
		if err != nil {
			return err
		}
	}
	return written.Close()
}

func blobName(digest v1.Hash) string { return "blobs/" + digest.Algorithm + "/" + digest.Hex }

// familiarName is the full name of an image as container runtimes write it.
func familiarName(tag name.Tag) string {
	return strings.Replace(tag.Name(), name.DefaultRegistry+"/", "docker.io/", 1)
}
