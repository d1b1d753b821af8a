package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	core "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/ringside-cache/ringside/deploy/inject"
)

func newStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "List the pods that lack the sidecar, have one of another template, or have warnings",
		Long: "Checks the pods that request the sidecar themselves or by the label of their namespace. It needs the rights to list pods and\n" +
			"namespaces and to get the ConfigMap of the injector. Exit code 1 if it lists a pod.",
		Args: cobra.NoArgs,
	}
	o := options{}
	cmd.Flags().StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file; by default that of kubectl")
	cmd.Flags().StringVar(&o.namespace, "namespace", "ringside", "namespace of the injector")
	config := cmd.Flags().String("configmap", "ringside-injector", "ConfigMap of the injector, with its template")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		_, client, err := o.connect()
		if err != nil {
			return err
		}
		return status(cmd.Context(), client, o.namespace, *config, cmd.OutOrStdout())
	}
	return cmd
}

// page is how many pods are read at a time.
const page = 500

func status(ctx context.Context, client core.CoreV1Interface, namespace, name string, out io.Writer) error {
	config, err := client.ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the template: %w", err)
	}
	template, err := inject.ParseTemplate([]byte(config.Data["template.yaml"]))
	if err != nil {
		return err
	}
	namespaces, err := client.Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list the namespaces: %w", err)
	}
	labels := map[string]map[string]string{}
	for _, n := range namespaces.Items {
		labels[n.Name] = n.Labels
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	found := 0
	for options := (metav1.ListOptions{Limit: page}); ; {
		pods, err := client.Pods("").List(ctx, options)
		if err != nil {
			return fmt.Errorf("list the pods: %w", err)
		}
		for _, pod := range pods.Items {
			if why := template.Outdated(&pod, labels[pod.Namespace]); why != "" {
				if found++; found == 1 {
					fmt.Fprintln(table, "NAMESPACE\tPOD\tSTATUS")
				}
				fmt.Fprintf(table, "%s\t%s\t%s\n", pod.Namespace, pod.Name, why)
			}
		}
		if options.Continue = pods.Continue; options.Continue == "" {
			break
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if found > 0 {
		return errors.New("restart the workloads of these pods, or correct their annotations")
	}
	return nil
}
