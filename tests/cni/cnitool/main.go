// cnitool as its project has it, on the Go library that the runtimes link: cnitool add|check|del|gc|status|version NET NETNS.
//
// Debian packages the library (golang-github-appc-cni-dev) and not the tool. What is read is the same: NETCONFPATH, CNI_PATH, CNI_IFNAME,
// CNI_ARGS, CAP_ARGS; the cache of results is CNI_CACHE, so that a test leaves none behind. The library knows the specification up to
// 1.0.0; of 1.1.0, gc and status go through its way of running a plugin, with a configuration as a newer library would make it.
package main

import (
	"context"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
)

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func pairs(text string) (args [][2]string) {
	for _, pair := range strings.Split(text, ";") {
		if key, value, found := strings.Cut(pair, "="); found {
			args = append(args, [2]string{key, value})
		}
	}
	return
}

func capabilities() (args map[string]interface{}, err error) {
	if text := os.Getenv("CAP_ARGS"); text != "" {
		err = json.Unmarshal([]byte(text), &args)
	}
	return
}

// For each plugin of the list, with the members of its configuration and more.
func runEach(list *libcni.NetworkConfigList, verb string, path []string, more map[string]interface{}) error {
	for _, plugin := range list.Plugins {
		config := map[string]interface{}{}
		if err := json.Unmarshal(plugin.Bytes, &config); err != nil {
			return err
		}
		config["name"], config["cniVersion"] = list.Name, list.CNIVersion
		for key, value := range more {
			config[key] = value
		}
		text, err := json.Marshal(config)
		if err != nil {
			return err
		}
		program, err := invoke.FindInPath(plugin.Network.Type, path)
		if err != nil {
			return err
		}
		args := &invoke.Args{Command: verb, Path: strings.Join(path, ":")}
		if err := invoke.ExecPluginWithoutResult(context.TODO(), program, text, args, nil); err != nil {
			return err
		}
	}
	return nil
}

func run(verb, name, netns string) error {
	path := filepath.SplitList(os.Getenv("CNI_PATH"))
	list, err := libcni.LoadConfList(env("NETCONFPATH", "/etc/cni/net.d"), name)
	if err != nil {
		return err
	}
	caps, err := capabilities()
	if err != nil {
		return err
	}
	cni := libcni.NewCNIConfigWithCacheDir(path, os.Getenv("CNI_CACHE"), nil)
	rt := &libcni.RuntimeConf{
		ContainerID:    fmt.Sprintf("cnitool-%x", sha512.Sum512([]byte(netns)))[:28],
		NetNS:          netns,
		IfName:         env("CNI_IFNAME", "eth0"),
		Args:           pairs(os.Getenv("CNI_ARGS")),
		CapabilityArgs: caps,
	}
	switch verb {
	case "add":
		result, err := cni.AddNetworkList(context.TODO(), list, rt)
		if err != nil {
			return err
		}
		return result.Print()
	case "check":
		return cni.CheckNetworkList(context.TODO(), list, rt)
	case "del":
		return cni.DelNetworkList(context.TODO(), list, rt)
	case "gc":
		return runEach(list, "GC", path, map[string]interface{}{"cni.dev/valid-attachments": nil})
	case "status":
		return runEach(list, "STATUS", path, nil)
	case "version":
		_, err := cni.ValidateNetworkList(context.TODO(), list)
		return err
	}
	return fmt.Errorf("unknown verb %s", verb)
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: cnitool add|check|del|gc|status|version NET NETNS")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
