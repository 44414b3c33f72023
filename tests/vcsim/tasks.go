package main

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

type forwarder func() *httptest.ResponseRecorder

var (
	taskReference = regexp.MustCompile(`<returnval type="Task">([^<]+)<`)
	thisReference = regexp.MustCompile(`<_this[^>]*type="(\w+)"[^>]*>([^<]+)<`)
	sourceName    = regexp.MustCompile(`<sourceName[^>]*>([^<]+)<`)
	destName      = regexp.MustCompile(`<destName[^>]*>([^<]+)<`)
)

// serve does a call as a real host would, or as a rule says.
func (f *Front) serve(
	name string, body []byte, rule *Rule, forward forwarder,
) *httptest.ResponseRecorder {
	if name == "CancelTask" {
		return f.cancel(body)
	}
	if !strings.HasSuffix(name, "_Task") {
		return forward()
	}
	found := thisReference.FindSubmatch(body)
	if found == nil {
		return forward()
	}
	this := types.ManagedObjectReference{Type: string(found[1]), Value: string(found[2])}
	vm, _ := simulator.Map.Get(this).(*simulator.VirtualMachine)
	if rule == nil {
		answer, fault := f.do(name, vm, body, forward)
		if fault != nil {
			return f.answer(name, this, func(*simulator.Task, <-chan struct{}) (
				types.AnyType, types.BaseMethodFault) {
				return nil, fault
			}, false)
		}
		return answer
	}
	return f.answer(name, this, func(task *simulator.Task, stop <-chan struct{}) (
		types.AnyType, types.BaseMethodFault) {
		return f.strange(name, vm, body, rule, forward, task, stop)
	}, rule.Action == "slow" || rule.Action == "hang")
}

// strange is a task as a rule wants it.
func (f *Front) strange(
	name string, vm *simulator.VirtualMachine, body []byte, rule *Rule, forward forwarder,
	task *simulator.Task, stop <-chan struct{},
) (types.AnyType, types.BaseMethodFault) {
	var source, copied string
	if name == "CopyVirtualDisk_Task" {
		source, copied = text(sourceName, body), text(destName, body)
	}
	switch rule.Action {
	case "error":
		if rule.Fault == "TaskInProgress" {
			return nil, &types.TaskInProgress{Task: task.Self}
		}
		return nil, newFault(rule.Fault)
	case "hang":
		if copied != "" {
			f.world.spoil(source, copied)
		}
		<-stop
		return nil, new(types.RequestCanceled)
	case "short":
		f.world.spoil(source, copied)
		return nil, nil
	case "slow":
		if rule.Fault == "" {
			// Begun while the caller's session lives; a real task does not need it to go on.
			if copied == "" {
				defer f.linger(name, rule, task)
				break
			}
			answer, fault := f.do(name, vm, body, forward)
			if fault != nil {
				return nil, fault
			}
			done := inner(answer)
			if done == nil || done.Info.Error != nil {
				return outcome(done)
			}
			whole := f.world.hide(source, copied)
			if !f.copy(name, rule, task, stop) {
				return nil, new(types.RequestCanceled)
			}
			whole()
			return outcome(done)
		}
		if copied != "" {
			f.world.spoil(source, copied)
		}
		if !f.copy(name, rule, task, stop) {
			return nil, new(types.RequestCanceled)
		}
		return nil, newFault(rule.Fault)
	}
	answer, fault := f.do(name, vm, body, forward)
	if fault != nil {
		return nil, fault
	}
	if rule.Action == "late" {
		return nil, newFault(rule.Fault)
	}
	return outcome(inner(answer))
}

// outcome is what a task of the simulator's has come to.
func outcome(done *simulator.Task) (types.AnyType, types.BaseMethodFault) {
	if done == nil {
		return nil, new(types.SystemError)
	}
	if done.Info.Error != nil {
		return nil, done.Info.Error.Fault.(types.BaseMethodFault)
	}
	return done.Info.Result, nil
}

// copy lets the time of a copy pass; false when it is cancelled meanwhile.
func (f *Front) copy(name string, rule *Rule, task *simulator.Task, stop <-chan struct{}) bool {
	f.enter(name, 1)
	defer f.enter(name, -1)
	for percent := int32(0); percent < 100; percent += 10 {
		select {
		case <-stop:
			return false
		case <-time.After(time.Duration(rule.Seconds * float64(time.Second) / 10)):
		}
		simulator.Map.Update(task, []types.PropertyChange{
			{Name: "info.progress", Val: percent}})
	}
	return true
}

// do lets the simulator do a call, with what a real host does besides.
func (f *Front) do(
	name string, vm *simulator.VirtualMachine, body []byte, forward forwarder,
) (*httptest.ResponseRecorder, types.BaseMethodFault) {
	if strings.HasPrefix(name, "Power") {
		f.world.power.Lock()
		defer f.world.power.Unlock()
	}
	if fault := f.before(name, vm, body); fault != nil {
		return nil, fault
	}
	kept := keepDisks(name, vm)
	answer := forward()
	kept.restore(vm)
	f.after(name, vm, body, inner(answer))
	return answer, nil
}

// linger lets a task that has done its work take its time to say so.
func (f *Front) linger(name string, rule *Rule, task *simulator.Task) {
	f.enter(name, 1)
	defer f.enter(name, -1)
	for percent := int32(0); percent < 100; percent += 10 {
		time.Sleep(time.Duration(rule.Seconds * float64(time.Second) / 10))
		simulator.Map.Update(task, []types.PropertyChange{{Name: "info.progress", Val: percent}})
	}
}

func (f *Front) enter(name string, change int) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.active[name] += change
	if f.active[name] > f.most[name] {
		f.most[name] = f.active[name]
	}
}

// before is what a real host checks and the simulator does not.
func (f *Front) before(
	name string, vm *simulator.VirtualMachine, body []byte,
) types.BaseMethodFault {
	switch {
	case name == "PowerOnVM_Task" && vm != nil:
		if missing := f.world.missingDisk(vm); missing != "" {
			return &types.FileNotFound{FileFault: types.FileFault{File: missing}}
		}
	case name == "PowerOffVM_Task" && vm != nil:
		if vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
			f.world.save(vm)
		}
	case name == "CloneVM_Task" && simulator.Map.IsESX():
		return new(types.NotSupported)
	case name == "CloneVM_Task" && isLinkedClone(body) && !snapshotGiven.Match(body):
		return &types.InvalidArgument{InvalidProperty: "spec.snapshot"}
	}
	return nil
}

// after is what a real host does besides.
func (f *Front) after(
	name string, vm *simulator.VirtualMachine, body []byte, task *simulator.Task,
) {
	if task == nil || task.Info.Error != nil {
		return
	}
	switch name {
	case "CreateVM_Task", "CloneVM_Task":
		if made, ok := task.Info.Result.(types.ManagedObjectReference); ok {
			if made, ok := simulator.Map.Get(made).(*simulator.VirtualMachine); ok {
				if name == "CloneVM_Task" && isLinkedClone(body) {
					makeChildren(vm, made)
				}
				f.world.linkDisks(made)
			}
		}
	case "ReconfigVM_Task":
		f.world.linkDisks(vm)
	case "PowerOnVM_Task":
		f.world.boot(vm)
	case "CopyVirtualDisk_Task":
		f.world.flatten(text(sourceName, body), text(destName, body))
	}
}

// answer makes a task of our own and returns its reference at once.
func (f *Front) answer(
	name string, this types.ManagedObjectReference,
	work func(*simulator.Task, <-chan struct{}) (types.AnyType, types.BaseMethodFault), wait bool,
) *httptest.ResponseRecorder {
	stop := make(chan struct{})
	task := simulator.CreateTask(
		simulator.Map.Get(this), strings.TrimSuffix(name, "_Task"),
		func(task *simulator.Task) (types.AnyType, types.BaseMethodFault) {
			return work(task, stop)
		})
	f.mutex.Lock()
	f.tasks[task.Self.Value] = stop
	f.mutex.Unlock()
	if wait {
		go task.Run()
	} else {
		task.Run()
	}
	return envelope(fmt.Sprintf(`<%[1]sResponse xmlns="urn:vim25"><returnval type="Task">%[2]s`+
		`</returnval></%[1]sResponse>`, name, task.Self.Value))
}

func (f *Front) cancel(body []byte) *httptest.ResponseRecorder {
	found := thisReference.FindSubmatch(body)
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if stop, ok := f.tasks[string(found[2])]; ok {
		select {
		case <-stop:
		default:
			close(stop)
		}
	}
	return envelope(`<CancelTaskResponse xmlns="urn:vim25"></CancelTaskResponse>`)
}

// inner is the task that the simulator has run for a call; nil when it refused the call.
func inner(answer *httptest.ResponseRecorder) *simulator.Task {
	found := taskReference.FindSubmatch(answer.Body.Bytes())
	if found == nil {
		return nil
	}
	task, _ := simulator.Map.Get(types.ManagedObjectReference{
		Type: "Task", Value: string(found[1])}).(*simulator.Task)
	return task
}

func envelope(body string) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	answer.Header().Set("Content-Type", "text/xml; charset=utf-8")
	answer.WriteHeader(http.StatusOK)
	fmt.Fprint(answer, xml.Header, `<soapenv:Envelope `+
		`xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>`+
		body+`</soapenv:Body></soapenv:Envelope>`)
	return answer
}

func text(pattern *regexp.Regexp, body []byte) string {
	found := pattern.FindSubmatch(body)
	if found == nil {
		return ""
	}
	return string(found[1])
}
