package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// World ties VMs to the guests of vcld's simulator: the content of a disk is the JSON document
// of a guest. Booting copies it from the disk to the guest, powering off copies it back.
type World struct {
	folder     string
	datastores map[string]string
	// A VM's power and its guest's change as one, or Watch turns off a VM that has just been
	// started, because its guest still says what it said before.
	power sync.Mutex
}

var parentLine = regexp.MustCompile(`(?m)^parentFileNameHint="(.*)"$`)

// file says where a datastore path lies on this machine.
func (w *World) file(name string) string {
	var at object.DatastorePath
	folder, ok := "", at.FromString(name)
	if ok {
		folder, ok = w.datastores[at.Datastore]
	}
	if !ok {
		return ""
	}
	return filepath.Join(folder, at.Path)
}

func flat(file string) string {
	if file == "" { // on no datastore that is known
		return ""
	}
	return strings.TrimSuffix(file, ".vmdk") + "-flat.vmdk"
}

// content reads a disk through its chain of parents; false when a link is missing.
func (w *World) content(name string) ([]byte, bool) {
	for i := 0; i < 32; i++ {
		file := w.file(name)
		descriptor, err := os.ReadFile(file)
		if err != nil {
			return nil, false
		}
		data, err := os.ReadFile(flat(file))
		if err != nil {
			return nil, false
		}
		parent := parentLine.FindSubmatch(descriptor)
		if len(data) > 0 || parent == nil {
			return data, true
		}
		name = string(parent[1])
	}
	return nil, false
}

func disks(vm *simulator.VirtualMachine) []*types.VirtualDiskFlatVer2BackingInfo {
	var found []*types.VirtualDiskFlatVer2BackingInfo
	for _, device := range vm.Config.Hardware.Device {
		if disk, ok := device.(*types.VirtualDisk); ok {
			found = append(found, disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo))
		}
	}
	return found
}

// linkDisks writes into the descriptors of delta disks whose children they are.
func (w *World) linkDisks(vm *simulator.VirtualMachine) {
	for _, disk := range disks(vm) {
		if disk.Parent != nil {
			text := "# Disk DescriptorFile\nparentFileNameHint=\"" + disk.Parent.FileName + "\"\n"
			_ = os.WriteFile(w.file(disk.FileName), []byte(text), 0o600)
		}
	}
}

// missingDisk is the name of a disk whose chain is broken, or empty.
func (w *World) missingDisk(vm *simulator.VirtualMachine) string {
	for _, disk := range disks(vm) {
		if _, ok := w.content(disk.FileName); !ok {
			return disk.FileName
		}
	}
	return ""
}

// flatten makes a copied disk independent of the parents of its source.
func (w *World) flatten(source, copied string) {
	if data, ok := w.content(source); ok {
		extent := filepath.Base(flat(w.file(copied)))
		text := "# Disk DescriptorFile\nRW 0 SPARSE \"" + extent + "\"\n"
		_ = os.WriteFile(w.file(copied), []byte(text), 0o600)
		_ = os.WriteFile(flat(w.file(copied)), data, 0o600)
	}
}

func (w *World) document(vm *simulator.VirtualMachine) string {
	name := strings.SplitN(vm.Name, "_", 2)[0]
	return filepath.Join(w.folder, "computer-"+name+".json")
}

// change edits a guest's document under the lock that vcld's simulator takes too.
func (w *World) change(file string, edit func(map[string]interface{}) map[string]interface{}) {
	_ = os.MkdirAll(w.folder, 0o700)
	lock, err := os.OpenFile(strings.TrimSuffix(file, ".json")+".lock",
		os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	defer lock.Close()
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX) != nil {
		return
	}
	facts := map[string]interface{}{}
	if data, err := os.ReadFile(file); err == nil {
		_ = json.Unmarshal(data, &facts)
	}
	facts = edit(facts)
	data, _ := json.Marshal(facts)
	partial := file + ".partial"
	if os.WriteFile(partial, data, 0o600) == nil {
		_ = os.Rename(partial, file)
	}
}

// boot lets the guest wake up with what is on the disk.
func (w *World) boot(vm *simulator.VirtualMachine) {
	backings := disks(vm)
	if w.folder == "" || len(backings) == 0 {
		return
	}
	data, _ := w.content(backings[0].FileName)
	w.change(w.document(vm), func(map[string]interface{}) map[string]interface{} {
		facts := map[string]interface{}{}
		_ = json.Unmarshal(data, &facts)
		facts["power"] = "on"
		return facts
	})
}

// save writes the guest's state to the VM's own disk; the guest is off afterwards.
func (w *World) save(vm *simulator.VirtualMachine) {
	backings := disks(vm)
	if w.folder == "" || len(backings) == 0 {
		return
	}
	w.change(w.document(vm), func(facts map[string]interface{}) map[string]interface{} {
		facts["power"] = "off"
		data, _ := json.Marshal(facts)
		_ = os.WriteFile(flat(w.file(backings[0].FileName)), data, 0o600)
		return facts
	})
}

// Watch turns VMs off whose guests have shut down.
func (w *World) Watch() {
	for range time.Tick(50 * time.Millisecond) {
		for _, entity := range simulator.Map.All("VirtualMachine") {
			if vm, ok := entity.(*simulator.VirtualMachine); ok {
				w.follow(vm)
			}
		}
	}
}

func (w *World) follow(vm *simulator.VirtualMachine) {
	w.power.Lock()
	defer w.power.Unlock()
	if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
		return
	}
	facts := map[string]interface{}{}
	data, err := os.ReadFile(w.document(vm))
	if err != nil || json.Unmarshal(data, &facts) != nil || facts["power"] != "off" {
		return
	}
	w.save(vm)
	setPower(vm, types.VirtualMachinePowerStatePoweredOff)
}

func setPower(vm *simulator.VirtualMachine, state types.VirtualMachinePowerState) {
	simulator.Map.WithLock(vm, func() {
		simulator.Map.Update(vm, []types.PropertyChange{
			{Name: "runtime.powerState", Val: state},
			{Name: "summary.runtime.powerState", Val: state},
		})
	})
}

// spoil leaves what a copy leaves that is not finished: a descriptor and half of the data.
func (w *World) spoil(source, copied string) {
	data, _ := w.content(source)
	_ = os.WriteFile(w.file(copied), []byte("# Disk DescriptorFile\n"), 0o600)
	_ = os.WriteFile(flat(w.file(copied)), data[:len(data)/2], 0o600)
}

// hide lets a copy that is done look like one that goes on; what it returns shows it.
func (w *World) hide(source, copied string) func() {
	descriptor, _ := os.ReadFile(w.file(copied))
	data, _ := os.ReadFile(flat(w.file(copied)))
	w.spoil(source, copied)
	return func() {
		_ = os.WriteFile(flat(w.file(copied)), data, 0o600)
		_ = os.WriteFile(w.file(copied), descriptor, 0o600)
	}
}
