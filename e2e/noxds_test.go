package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
	"github.com/ringside-cache/ringside/xds"
)

// maxProgram is the largest program, in bytes, that the nodes of a cluster should have to fetch.
const maxProgram = 36 << 20

// A program with the build tag noxds has nothing of Envoy's API. It rejects the fields that need it, and serves as any other.
func TestProgramWithoutXDS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := filepath.Join(dir, "ringside")
	goCommand := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	goCommand("build", "-trimpath", "-ldflags", "-s -w", "-tags", "grpcnotrace,noxds", "-o", program, "./sidecar/cmd/ringside") // else as package rig does
	const envoy, command = "github.com/envoyproxy/", "./sidecar/cmd/ringside"
	if with, without := goCommand("list", "-deps", command), goCommand("list", "-deps", "-tags", "noxds", command); !strings.Contains(with, envoy) || strings.Contains(without, envoy) {
		t.Errorf("%s is in the program with the tag: %t; without: %t", envoy, strings.Contains(without, envoy), strings.Contains(with, envoy))
	}

	for name, path := range map[string]string{"complete": rig.Binary(t), "noxds": program} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.1f MiB", name, float64(info.Size())/(1<<20))
		// text/template alone, which makes the linker keep every exported method, adds 10 MiB.
		if info.Size() > maxProgram {
			t.Errorf("the program (%s) has %d bytes, more than %d: go build -ldflags=-dumpdep shows what <ReflectMethod> keeps", name, info.Size(), maxProgram)
		}
	}

	config := filepath.Join(dir, "ringside.yaml")
	validate := func(more string) string {
		t.Helper()
		text := "origins: {db: {driver: sqlite, dsn: " + filepath.Join(dir, "rows.db") + "}}\ndatasets: {d: {origin: db, table: t, key: k}}\n" + more
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, _ := exec.Command(program, "validate", "-c", config).CombinedOutput()
		return string(out)
	}
	sqlitetest.Exec(t, filepath.Join(dir, "rows.db"), "CREATE TABLE t (k TEXT PRIMARY KEY)")
	if out := validate(""); !strings.Contains(out, "ok") {
		t.Errorf("a configuration without xDS: %s", out)
	}
	for field, text := range map[string]string{
		"listen.xds":     "listen: {xds: '127.0.0.1:7079'}\nmembership: {static: ['127.0.0.1:7072']}\nnode: {advertise: '127.0.0.1:7072'}\npeer_tls: {insecure: true}\n",
		"membership.xds": "membership: {xds: ['127.0.0.1:7079']}\npeer_tls: {insecure: true}\n",
		"ext_authz":      "ext_authz: {dataset: d, header: x-api-key}\n",
	} {
		if out := validate(text); !strings.Contains(out, field+": "+xds.LeftOut) {
			t.Errorf("%s: %s", field, out)
		}
	}
}
