package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// startEtcd runs an etcd cluster of one member in this process, with its files below dir.
func startEtcd(ctx context.Context, dir string) (server *embed.Etcd, endpoint string, err error) {
	client, err := loopbackURL()
	if err != nil {
		return nil, "", err
	}
	peer, err := loopbackURL()
	if err != nil {
		return nil, "", err
	}
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(dir, "etcd")
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.UnsafeNoFsync = true // after a crash of the machine the demo needs no data
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	server, err = embed.StartEtcd(cfg)
	if err != nil {
		return nil, "", fmt.Errorf("start etcd: %w", err)
	}
	select {
	case <-server.Server.ReadyNotify():
		return server, client.String(), nil
	case err = <-server.Err():
	case <-ctx.Done():
		err = ctx.Err()
	}
	server.Close()
	return nil, "", errors.Join(errors.New("etcd did not become ready"), err)
}

func loopbackURL() (url.URL, error) {
	port, err := freePort()
	if err != nil {
		return url.URL{}, fmt.Errorf("find a port for etcd: %w", err)
	}
	return url.URL{Scheme: "http", Host: loopback(port)}, nil
}
