package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Rule says what goes wrong, or slowly, at a method.
type Rule struct {
	Method string `json:"method"` // pattern, such as PowerOnVM_Task or *
	Match  string `json:"match"`  // regular expression that the request must contain
	// slow: the task takes time; error: the task ends in Fault; late: it is done, but the task
	// ends in Fault; hang: the task never ends; fault: the call itself is refused; 503; 401; cut: the
	// connection is cut before the call; lost: the call is done, its answer is lost; delay.
	Action  string  `json:"action"`
	Fault   string  `json:"fault"`
	Seconds float64 `json:"seconds"`
	Times   int     `json:"times"` // 0: always
	Skip    int     `json:"skip"`  // let this many pass first
	struck  int
}

// Front stands before the simulator's handler.
type Front struct {
	next   http.Handler
	world  *World
	mutex  sync.Mutex
	rules  []*Rule
	calls  map[string]int
	free   map[string]int64         // what datastores report, whatever the simulator reckons
	unseen map[string]int64         // what they report once they are told to look
	whole  bool                     // disks are listed as one file
	tasks  map[string]chan struct{} // closed when the task is cancelled
	active map[string]int
	most   map[string]int
}

// NewFront makes one.
func NewFront(next http.Handler, world *World) *Front {
	return &Front{next: next, world: world, calls: map[string]int{},
		free: map[string]int64{}, unseen: map[string]int64{}, tasks: map[string]chan struct{}{}, active: map[string]int{}, most: map[string]int{}}
}

var methodName = regexp.MustCompile(`<soapenv:Body><(\w+)`)

func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/sdk" {
		f.serveFile(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	name := "unknown"
	if found := methodName.FindSubmatch(body); found != nil {
		name = string(found[1])
	}
	rule := f.strike(name, body)
	if rule != nil && f.refuse(w, rule) {
		return
	}
	if name == "RefreshDatastore" { // the simulator's own answer is empty
		f.refreshSpace()
		fmt.Fprint(w, refreshed)
		return
	}
	f.fixSpace()
	forward := func() *httptest.ResponseRecorder {
		again := r.Clone(r.Context())
		again.Body = io.NopCloser(bytes.NewReader(body))
		answer := httptest.NewRecorder()
		f.next.ServeHTTP(answer, again)
		return answer
	}
	if rule != nil && rule.Action == "lost" {
		f.serve(name, body, nil, forward)
		cut(w)
		return
	}
	answer := f.serve(name, body, rule, forward)
	for key, values := range answer.Header() {
		w.Header()[key] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(f.list(answer.Body.Bytes()))
}

var (
	entry     = regexp.MustCompile(`(?s)<file[ >].*?</file>`)
	entryPath = regexp.MustCompile(`<path>(.*?)</path>`)
	entrySize = regexp.MustCompile(`<fileSize>(\d+)</fileSize>`)
)

// list shows each disk in a folder as one file that is as large as its data, if a test wants it:
// so do real hosts, while the simulator lists the files that a disk consists of.
func (f *Front) list(body []byte) []byte {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if !f.whole {
		return body
	}
	data := map[string]string{}
	for _, found := range entry.FindAllString(string(body), -1) {
		name, size := entryPath.FindStringSubmatch(found), entrySize.FindStringSubmatch(found)
		if name != nil && size != nil && strings.HasSuffix(name[1], "-flat.vmdk") {
			data[strings.TrimSuffix(name[1], "-flat.vmdk")+".vmdk"] = size[0]
		}
	}
	return entry.ReplaceAllFunc(body, func(found []byte) []byte {
		name := entryPath.FindSubmatch(found)
		if name == nil {
			return found
		}
		if strings.HasSuffix(string(name[1]), "-flat.vmdk") {
			return nil
		}
		if size, ok := data[string(name[1])]; ok {
			return entrySize.ReplaceAll(found, []byte(size))
		}
		return found
	})
}

// fixSpace undoes the simulator's own reckoning, which never gives back what a disk took.
func (f *Front) fixSpace() {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	for _, entity := range simulator.Map.All("Datastore") {
		store := entity.(*simulator.Datastore)
		bytes, ok := f.free[store.Name]
		if !ok {
			bytes = 500 << 30
		}
		simulator.Map.WithLock(store, func() { store.Summary.FreeSpace = bytes })
	}
}

const refreshed = `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope ` +
	`xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>` +
	`<RefreshDatastoreResponse xmlns="urn:vim25"></RefreshDatastoreResponse>` +
	`</soapenv:Body></soapenv:Envelope>`

// refreshSpace lets datastores report what is free now.
func (f *Front) refreshSpace() {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	for name, bytes := range f.unseen {
		f.free[name] = bytes
	}
	f.unseen = map[string]int64{}
}

func (f *Front) serveFile(w http.ResponseWriter, r *http.Request) {
	rule := f.strike(r.Method+" /folder", []byte(r.URL.String()))
	switch {
	case rule != nil && rule.Action == "lost":
		f.next.ServeHTTP(httptest.NewRecorder(), r)
		cut(w)
	case rule == nil || !f.refuse(w, rule):
		f.next.ServeHTTP(w, r)
	}
}

// strike counts a call and finds the rule for it.
func (f *Front) strike(name string, body []byte) *Rule {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.calls[name]++
	for _, rule := range f.rules {
		named, _ := path.Match(rule.Method, name)
		if !named || (rule.Times > 0 && rule.struck >= rule.Times) {
			continue
		}
		if found, _ := regexp.Match(rule.Match, body); !found {
			continue
		}
		if rule.Skip > 0 {
			rule.Skip--
			continue
		}
		rule.struck++
		return rule
	}
	return nil
}

// refuse does what strikes before the call; true when the call is over.
func (f *Front) refuse(w http.ResponseWriter, rule *Rule) bool {
	switch rule.Action {
	case "503":
		w.WriteHeader(http.StatusServiceUnavailable)
	case "401":
		w.WriteHeader(http.StatusUnauthorized)
	case "cut":
		cut(w)
	case "delay":
		time.Sleep(time.Duration(rule.Seconds * float64(time.Second)))
		return false
	case "fault":
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope `+
			`xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" `+
			`xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body><soapenv:Fault>`+
			`<faultcode>ServerFaultCode</faultcode><faultstring>made to fail</faultstring>`+
			`<detail><%[1]sFault xmlns="urn:vim25" xsi:type="%[1]s"></%[1]sFault></detail>`+
			`</soapenv:Fault></soapenv:Body></soapenv:Envelope>`, rule.Fault)
	default:
		return false
	}
	return true
}

func cut(w http.ResponseWriter) {
	if connection, _, err := w.(http.Hijacker).Hijack(); err == nil {
		_ = connection.Close()
	}
}

// newFault makes a fault by its name; InvalidArgument may name a property behind a colon.
func newFault(name string) types.BaseMethodFault {
	if property := strings.TrimPrefix(name, "InvalidArgument:"); property != name {
		return &types.InvalidArgument{InvalidProperty: property}
	}
	kind, ok := types.TypeFunc()(name)
	if !ok {
		kind = reflect.TypeOf(types.SystemError{})
	}
	return reflect.New(kind).Interface().(types.BaseMethodFault)
}

// Control is how a test steers the front: plain HTTP, JSON.
func (f *Front) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/rules", func(_ http.ResponseWriter, r *http.Request) {
		var rules []*Rule
		_ = json.NewDecoder(r.Body).Decode(&rules)
		f.mutex.Lock()
		defer f.mutex.Unlock()
		f.rules = rules
	})
	mux.HandleFunc("/calls", func(w http.ResponseWriter, r *http.Request) {
		f.mutex.Lock()
		defer f.mutex.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]interface{}{"calls": f.calls, "most": f.most})
		if r.Method == http.MethodDelete {
			f.calls, f.most = map[string]int{}, map[string]int{}
		}
	})
	mux.HandleFunc("/space", func(_ http.ResponseWriter, r *http.Request) {
		var free map[string]int64
		_ = json.NewDecoder(r.Body).Decode(&free)
		f.mutex.Lock()
		defer f.mutex.Unlock()
		for name, bytes := range free {
			if r.URL.Query().Get("unseen") != "" {
				f.unseen[name] = bytes
			} else {
				f.free[name] = bytes
			}
		}
	})
	mux.HandleFunc("/whole", func(_ http.ResponseWriter, r *http.Request) {
		f.mutex.Lock()
		defer f.mutex.Unlock()
		_ = json.NewDecoder(r.Body).Decode(&f.whole)
	})
	mux.HandleFunc("/licence", func(_ http.ResponseWriter, r *http.Request) {
		var wanted struct{ Edition, Name string }
		_ = json.NewDecoder(r.Body).Decode(&wanted)
		for _, value := range []string{"ha-license-manager", "LicenseManager"} {
			manager, ok := simulator.Map.Get(types.ManagedObjectReference{
				Type: "LicenseManager", Value: value}).(*simulator.LicenseManager)
			if ok {
				manager.Licenses = []types.LicenseManagerLicenseInfo{
					{EditionKey: wanted.Edition, Name: wanted.Name}}
			}
		}
	})
	mux.HandleFunc("/vm", func(_ http.ResponseWriter, r *http.Request) {
		var wanted struct{ Name, Connection string }
		_ = json.NewDecoder(r.Body).Decode(&wanted)
		for _, entity := range simulator.Map.All("VirtualMachine") {
			vm := entity.(*simulator.VirtualMachine)
			if strings.HasPrefix(vm.Name, wanted.Name) {
				simulator.Map.WithLock(vm, func() {
					simulator.Map.Update(vm, []types.PropertyChange{{
						Name: "runtime.connectionState",
						Val:  types.VirtualMachineConnectionState(wanted.Connection),
					}})
				})
			}
		}
	})
	mux.HandleFunc("/stats", func(_ http.ResponseWriter, r *http.Request) {
		// The simulator's own statistics never change.
		var wanted struct {
			Name        string
			Cpu, Memory int32
		}
		_ = json.NewDecoder(r.Body).Decode(&wanted)
		for _, entity := range simulator.Map.All("VirtualMachine") {
			if vm := entity.(*simulator.VirtualMachine); strings.HasPrefix(vm.Name, wanted.Name) {
				simulator.Map.WithLock(vm, func() {
					vm.Summary.QuickStats.OverallCpuUsage = wanted.Cpu
					vm.Summary.QuickStats.HostMemoryUsage = wanted.Memory
				})
			}
		}
		for _, entity := range simulator.Map.All("HostSystem") {
			if host := entity.(*simulator.HostSystem); wanted.Name == "" || host.Name == wanted.Name {
				simulator.Map.WithLock(host, func() {
					host.Summary.QuickStats.OverallCpuUsage = wanted.Cpu
					host.Summary.QuickStats.OverallMemoryUsage = wanted.Memory
				})
			}
		}
	})
	return mux
}
