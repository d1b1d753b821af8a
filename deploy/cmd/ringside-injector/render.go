package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/ringside-cache/ringside/deploy/inject"
	"github.com/ringside-cache/ringside/deploy/inject/admission"
)

func newRender() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "render",
		Short: "Read objects from stdin and print them with the changes of the webhook to their pods",
		Long: "Reads YAML documents or JSON: pods, objects with a pod template (Deployment, StatefulSet, DaemonSet, Job, CronJob, …),\n" +
			"and lists of them. Objects without pods are printed as they are. No cluster is needed.",
		Example: "  ringside-injector render < deployment.yaml\n" +
			"  kubectl get deployments -o yaml | ringside-injector render --namespace-asks",
		Args: cobra.NoArgs,
	}
	templateFile := cmd.Flags().String("template", "", "template of the injected container; by default that of the chart's default values")
	namespace := cmd.Flags().Bool("namespace-asks", false, "the namespace of the pods requests injection by its label")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r := renderer{asker: inject.Pod, warn: func(text string) { cmd.PrintErrln("warning: " + text) }}
		if *namespace {
			r.asker = inject.Namespace
		}
		var err error
		if *templateFile == "" {
			r.template, err = inject.ParseTemplate(inject.DefaultTemplate)
		} else {
			r.template, err = readTemplate(*templateFile)
		}
		if err != nil {
			return err
		}
		text, err := io.ReadAll(cmd.InOrStdin())
		if err != nil {
			return fmt.Errorf("read the objects: %w", err)
		}
		if text, err = r.documents(text); err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	}
	return cmd
}

// renderer injects into the pods of objects.
type renderer struct {
	template *inject.Template
	asker    inject.Asker
	warn     func(string)
	pods     int
}

// documents renders each document of a YAML stream.
func (r *renderer) documents(text []byte) ([]byte, error) {
	var rendered [][]byte
	for i, document := range split(text) {
		object := map[string]any{}
		if err := yaml.UnmarshalStrict(document, &object, keepNumbers); err != nil {
			return nil, fmt.Errorf("decode document %d: %w", i+1, err)
		}
		if len(object) == 0 { // comments only
			continue
		}
		if err := r.object(object); err != nil {
			return nil, err
		}
		out, err := yaml.Marshal(object)
		if err != nil {
			return nil, fmt.Errorf("encode document %d: %w", i+1, err)
		}
		rendered = append(rendered, out)
	}
	if r.pods == 0 {
		return nil, errors.New("found no pod: want objects of the kind Pod, or with a pod template, such as a Deployment")
	}
	return bytes.Join(rendered, []byte("---\n")), nil
}

// keepNumbers leaves numbers of more digits than a float64 has as they are.
func keepNumbers(d *json.Decoder) *json.Decoder {
	d.UseNumber()
	return d
}

// split returns the documents of a YAML stream: a line that begins with --- starts one (YAML 1.2, 9.1.2), even within a text.
func split(text []byte) (documents [][]byte) {
	var document []byte
	for line := range bytes.Lines(text) {
		if rest, found := bytes.CutPrefix(line, []byte("---")); found && (len(rest) == 0 || strings.ContainsRune(" \t\r\n", rune(rest[0]))) {
			documents, document, line = append(documents, document), nil, rest
		}
		document = append(document, line...)
	}
	return append(documents, document)
}

// templates are the paths of pods in objects.
var templates = [][]string{
	{"spec", "template"},                        // Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, …
	{"spec", "jobTemplate", "spec", "template"}, // CronJob
	{"template"},                                // PodTemplate
}

// object injects into the pods of an object.
func (r *renderer) object(object map[string]any) error {
	kind, _ := object["kind"].(string)
	if items, ok := object["items"].([]any); ok && strings.HasSuffix(kind, "List") {
		for _, item := range items {
			if item, ok := item.(map[string]any); ok {
				if err := r.object(item); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if kind == "Pod" {
		return r.pod(object, "Pod "+nameOf(object))
	}
	for _, path := range templates {
		if pod := at(object, path); isPod(pod) {
			return r.pod(pod, kind+" "+nameOf(object))
		}
	}
	return nil
}

func nameOf(object map[string]any) string {
	name, _ := at(object, []string{"metadata"})["name"].(string)
	return name
}

// at returns the object at a path; nil if there is none.
func at(object map[string]any, path []string) map[string]any {
	for _, name := range path {
		object, _ = object[name].(map[string]any)
	}
	return object
}

func isPod(template map[string]any) bool {
	containers, ok := at(template, []string{"spec"})["containers"].([]any)
	return ok && len(containers) > 0
}

// pod injects into a pod or a pod template.
func (r *renderer) pod(pod map[string]any, of string) error {
	r.pods++
	document, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": orEmpty(pod["metadata"]), "spec": orEmpty(pod["spec"]),
	})
	if err != nil {
		return fmt.Errorf("encode %s: %w", of, err)
	}
	read, err := admission.ReadPod(bytes.NewReader(document))
	if err != nil {
		return fmt.Errorf("decode %s: %w", of, err)
	}
	ops, warnings, err := inject.Patch(read, r.asker, r.template)
	for _, warning := range slices.Compact(warnings) {
		r.warn(of + ": " + warning)
	}
	if err != nil {
		return fmt.Errorf("%s would be rejected: %w", of, err)
	}
	patched, err := apply(document, ops)
	if err != nil {
		return err
	}
	var parts struct{ Metadata, Spec map[string]any }
	decoder := keepNumbers(json.NewDecoder(bytes.NewReader(patched)))
	if err := decoder.Decode(&parts); err != nil {
		return fmt.Errorf("decode the patched %s: %w", of, err)
	}
	pod["spec"] = parts.Spec
	if len(parts.Metadata) > 0 {
		pod["metadata"] = parts.Metadata
	}
	return nil
}

func orEmpty(object any) any {
	if object == nil {
		return map[string]any{}
	}
	return object
}

func apply(document []byte, ops []inject.Operation) ([]byte, error) {
	text, err := json.Marshal(ops)
	if err != nil {
		return nil, fmt.Errorf("encode the patch: %w", err)
	}
	patch, err := jsonpatch.DecodePatch(text)
	if err != nil {
		return nil, fmt.Errorf("decode the patch: %w", err)
	}
	if document, err = patch.Apply(document); err != nil {
		return nil, fmt.Errorf("apply the patch: %w", err)
	}
	return document, nil
}
