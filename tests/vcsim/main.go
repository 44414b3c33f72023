// A vSphere API endpoint for tests: govmomi's simulator, with what it lacks of a real host.
//
// Added here: files of disks hold the state of a simulated guest, so that what a VM boots is
// what lies on its disk; delta disks that are flattened when copied; tasks that take time, fail,
// hang or are cancelled; faults of the transport; counted calls. It ends when its standard input
// is closed, so that it never outlives the test that started it.
package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Options is the JSON document given as the only argument.
type Options struct {
	Mode       string            `json:"mode"` // esx or vc
	Hosts      int               `json:"hosts"`
	Datastores map[string]string `json:"datastores"` // name to folder
	Shared     []string          `json:"shared"`     // names that several hosts see
	Networks   []string          `json:"networks"`   // standard port groups
	World      string            `json:"world"`      // state_dir of the simulated guests
	User       string            `json:"user"`
	Password   string            `json:"password"`
	Port       int               `json:"port"`
}

func main() {
	var options Options
	flag.Parse()
	check(json.Unmarshal([]byte(flag.Arg(0)), &options))
	log.SetOutput(io.Discard)

	model := simulator.ESX()
	if options.Mode == "vc" {
		model = simulator.VPX()
		model.Cluster, model.Host, model.ClusterHost = 1, 0, options.Hosts
	}
	model.Machine, model.Datastore = 0, 0
	check(model.Create())
	model.Service.TLS = new(tls.Config)
	model.Service.Listen = &url.URL{
		Host: fmt.Sprintf("127.0.0.1:%d", options.Port),
		User: url.UserPassword(options.User, options.Password),
	}
	server := model.Service.NewServer()
	equip(server.URL, &options)

	world := &World{folder: options.World, datastores: options.Datastores}
	front := NewFront(server.Config.Handler, world)
	server.Config.Handler = front
	control, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	go func() { _ = http.Serve(control, front.Control()) }()
	go world.Watch()

	certificate := server.Certificate()
	sum := sha256.Sum256(certificate.Raw)
	check(json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
		"port":       server.Listener.Addr().(*net.TCPAddr).Port,
		"control":    "http://" + control.Addr().String(),
		"thumbprint": hex.EncodeToString(sum[:]),
		"ca": string(pem.EncodeToMemory(
			&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})),
	}))
	_, _ = io.Copy(io.Discard, os.Stdin)
	model.Remove()
}

// equip gives every host its datastores and port groups.
func equip(address *url.URL, options *Options) {
	ctx := context.Background()
	client, err := govmomi.NewClient(ctx, address, true)
	check(err)
	finder := find.NewFinder(client.Client)
	center, err := finder.DefaultDatacenter(ctx)
	check(err)
	finder.SetDatacenter(center)
	hosts, err := finder.HostSystemList(ctx, "*/*")
	check(err)
	for index, host := range hosts {
		stores, err := host.ConfigManager().DatastoreSystem(ctx)
		check(err)
		for name, folder := range options.Datastores {
			check(os.MkdirAll(folder, 0o700))
			_, err := stores.CreateLocalDatastore(ctx, name, folder)
			check(err)
		}
		networks, err := host.ConfigManager().NetworkSystem(ctx)
		check(err)
		for _, name := range options.Networks {
			err := networks.AddPortGroup(ctx, types.HostPortGroupSpec{
				Name: name, VswitchName: "vSwitch0",
			})
			if index == 0 { // the simulator takes the other hosts' port groups for a second network
				check(err)
			}
		}
	}
	for _, entity := range simulator.Map.All("Datastore") {
		store := entity.(*simulator.Datastore)
		shared := len(hosts) > 1
		for _, name := range options.Shared {
			shared = shared || name == store.Name
		}
		store.Summary.MultipleHostAccess = types.NewBool(shared)
	}
	for _, entity := range simulator.Map.All("Datacenter") {
		center := entity.(*simulator.Datacenter)
		center.Datastore = living(center.Datastore)
	}
	for _, entity := range simulator.Map.All("HostSystem") {
		host := entity.(*simulator.HostSystem)
		host.Datastore = living(host.Datastore)
		for _, network := range simulator.Map.All("Network") {
			// The simulator shows new port groups in the datacenter only.
			for _, name := range options.Networks {
				if network.Entity().Name == name {
					host.Network = append(host.Network, network.Reference())
				}
			}
		}
	}
	check(client.Logout(ctx))
}

// living leaves out what the simulator's template names but never made.
func living(references []types.ManagedObjectReference) []types.ManagedObjectReference {
	var found []types.ManagedObjectReference
	for _, reference := range references {
		if simulator.Map.Get(reference) != nil {
			found = append(found, reference)
		}
	}
	return found
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "vcsim:", err)
		os.Exit(1)
	}
}
