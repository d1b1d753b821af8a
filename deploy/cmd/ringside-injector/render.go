package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/ringside-cache/ringside/deploy/inject"
	"github.com/ringside-cache/ringside/deploy/inject/admission"
)

func newRender() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "render",
		Short:   "Read a pod from stdin and print it with the changes of the webhook",
		Example: "  ringside-injector render --template template.yaml < pod.yaml",
		Args:    cobra.NoArgs,
	}
	templateFile := templateFlag(cmd)
	namespace := cmd.Flags().Bool("namespace-asks", false, "the namespace of the pod requests injection by its label")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		template, err := readTemplate(*templateFile)
		if err != nil {
			return err
		}
		asker := inject.Pod
		if *namespace {
			asker = inject.Namespace
		}
		text, err := io.ReadAll(cmd.InOrStdin())
		if err != nil {
			return fmt.Errorf("read the pod: %w", err)
		}
		text, warnings, err := render(text, asker, template)
		for _, warning := range warnings {
			cmd.PrintErrln("warning: " + warning)
		}
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	}
	return cmd
}

func render(text []byte, asker inject.Asker, t *inject.Template) (patched []byte, warnings []string, err error) {
	document, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, nil, fmt.Errorf("decode the pod: %w", err)
	}
	pod, err := admission.ReadPod(bytes.NewReader(document))
	if err != nil {
		return nil, nil, fmt.Errorf("decode the pod: %w", err)
	}
	if pod.Kind != "Pod" {
		return nil, nil, errors.New("decode the pod: want one document of kind Pod")
	}
	ops, warnings, err := inject.Patch(pod, asker, t)
	if err != nil {
		return nil, warnings, fmt.Errorf("rejected: %w", err)
	}
	if document, err = apply(document, ops); err != nil {
		return nil, warnings, err
	}
	patched, err = yaml.JSONToYAML(document)
	return patched, warnings, err
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
