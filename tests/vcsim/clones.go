package main

import (
	"bytes"
	"regexp"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Hand-made: the simulator clones by making empty disks, takes no notice of diskMoveType, and
// spoils the source's disks. What a vCenter does with createNewChildDiskBacking is added here.

var snapshotGiven = regexp.MustCompile(`<snapshot[ >]`)

func isLinkedClone(body []byte) bool {
	return bytes.Contains(body, []byte("createNewChildDiskBacking"))
}

// keptDisks are the disks of a VM before it is cloned.
type keptDisks map[int]*types.VirtualDisk

func keepDisks(name string, vm *simulator.VirtualMachine) keptDisks {
	kept := keptDisks{}
	if name != "CloneVM_Task" || vm == nil {
		return kept
	}
	for index, device := range vm.Config.Hardware.Device {
		if disk, ok := device.(*types.VirtualDisk); ok {
			copied := *disk
			backing := *disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
			copied.Backing = &backing
			kept[index] = &copied
		}
	}
	return kept
}

func (kept keptDisks) restore(vm *simulator.VirtualMachine) {
	for index, disk := range kept {
		vm.Config.Hardware.Device[index] = disk
	}
}

// makeChildren lets the disks of a clone be children of those of its source.
func makeChildren(source, clone *simulator.VirtualMachine) {
	parents := disks(source)
	for index, disk := range disks(clone) {
		if index < len(parents) {
			parent := *parents[index]
			disk.Parent = &parent
		}
	}
}
