package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
)

func (c *Cluster) commandPath(component string) string { return c.path("commands", component+".json") }

// rememberCommand keeps how a component was started, for StartComponent.
func (c *Cluster) rememberCommand(component string, command []string) error {
	data, err := json.MarshalIndent(command, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(c.commandPath(component), append(data, '\n'), 0o644)
}

// restartable are the components that StopComponent and StartComponent know: all but
// containerd, whose shims bear its mark and outlive it.
var restartable = slices.DeleteFunc(slices.Clone(stopOrder), func(name string) bool { return name == "containerd" })

// recallCommand is how the named component of this cluster was started.
func (c *Cluster) recallCommand(component string) ([]string, error) {
	if !slices.Contains(restartable, component) {
		return nil, fmt.Errorf("no component is called %q; there are %s", component, strings.Join(restartable, ", "))
	}
	data, err := os.ReadFile(c.commandPath(component))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the cluster in %s has no %s", c.Directory, component)
	} else if err != nil {
		return nil, err
	}
	var command []string
	return command, json.Unmarshal(data, &command)
}

// StopComponent ends one component, politely or by SIGKILL, and returns when it is gone.
func (c *Cluster) StopComponent(component string, kill bool) error {
	if _, err := c.recallCommand(component); err != nil {
		return err
	}
	grace := 15 * time.Second
	if kill {
		grace = 0
	}
	return c.stop(component, grace)
}

// StartComponent starts a component as Up did, unless it runs, and returns when it works.
func (c *Cluster) StartComponent(ctx context.Context, component string) error {
	command, err := c.recallCommand(component)
	if err != nil {
		return err
	}
	if len(c.processes(component)) > 0 {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := c.start(cancel, component, command...); err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	return poll(ctx, component, func(ctx context.Context) error { return c.works(ctx, client, component) })
}

// works is nil when a component that was just started does its work, as far as that shows.
func (c *Cluster) works(ctx context.Context, client kubernetes.Interface, component string) error {
	switch component {
	case "kube-apiserver":
		return ready(ctx, client)
	case "registry":
		return listens(RegistryAddress)
	case "objects":
		return listens(ObjectsAddress)
	case "coredns":
		return dnsReady(ctx)
	default:
		return nil
	}
}

// listens is nil when somebody takes connections at an address.
func listens(address string) error {
	connection, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		connection.Close()
	}
	return err
}
