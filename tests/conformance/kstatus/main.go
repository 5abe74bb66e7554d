// Kstatus-wait waits for an LLMDeployment as Flux does: with Flux's own library, which knows
// nothing of Perennial and computes a status from the conditions alone. It prints each status
// that it sees, and ends with 0 when that is Current.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
)

var resource = schema.GroupVersionResource{Group: "perennial.dev", Version: "v1alpha1", Resource: "llmdeployments"}

const usage = `usage: kstatus-wait [--timeout 5m] [--for Current] KUBECONFIG NAMESPACE NAME

Exits with 0 when the object has the status waited for, with 1 when the time is up, and at once
with 1 when the object has the status Failed and something else is waited for.
`

func main() {
	timeout := flag.Duration("timeout", 5*time.Minute, "how long to wait")
	wanted := flag.String("for", status.CurrentStatus.String(), "Current, InProgress, Failed, Terminating or NotFound")
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flag.Parse()
	if flag.NArg() != 3 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	if err := wait(ctx, flag.Arg(0), flag.Arg(1), flag.Arg(2), status.Status(*wanted)); err != nil {
		fmt.Fprintln(os.Stderr, "kstatus-wait:", err)
		os.Exit(1)
	}
}

func wait(ctx context.Context, kubeconfig, namespace, name string, wanted status.Status) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	objects := client.Resource(resource).Namespace(namespace)
	started := time.Now()
	var last status.Result
	for {
		object, err := objects.Get(ctx, name, metav1.GetOptions{})
		now, err := compute(object, err)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if err == nil && (now.Status != last.Status || now.Message != last.Message) {
			fmt.Printf("%6.1f s  %-11s %s\n", time.Since(started).Seconds(), now.Status, now.Message)
			last = *now
		}
		if err == nil && now.Status == wanted {
			return nil
		}
		if err == nil && now.Status == status.FailedStatus {
			return fmt.Errorf("%s/%s failed: %s", namespace, name, now.Message)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s/%s is %s and not %s: %w", namespace, name, last.Status, wanted, context.Cause(ctx))
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// compute is the status of what was read, or of what is not there.
func compute(object *unstructured.Unstructured, err error) (*status.Result, error) {
	var answer apierrors.APIStatus
	if apierrors.IsNotFound(err) && errors.As(err, &answer) {
		return &status.Result{Status: status.NotFoundStatus, Message: answer.Status().Message}, nil
	} else if err != nil {
		return nil, err
	}
	return status.Compute(object)
}
