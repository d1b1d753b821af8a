module github.com/ringside-cache/ringside/e2e/grafana

go 1.26

require github.com/grafana/grafana-foundation-sdk/go v0.0.22
