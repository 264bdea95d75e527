// Verdicts on objects as GitOps tools give them: Argo CD's by our Lua in the interpreter that it uses, Flux's by the
// library that it uses (kstatus). In: {"scripts": {KIND: {...}}, "objects": [...]}. Out: one verdict per object.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	luajson "layeh.com/gopher-json"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

type scripts struct {
	Health    string            `json:"health"`
	Discovery string            `json:"discovery"`
	Actions   map[string]string `json:"actions"`
}

type request struct {
	Scripts map[string]scripts `json:"scripts"`
	Objects []json.RawMessage  `json:"objects"`
}

type health struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

type action struct {
	Disabled bool `json:"disabled"`
	After    any  `json:"after"` // the object as the action returns it
}

type verdict struct {
	Argo    health            `json:"argo"`
	Kstatus health            `json:"kstatus"`
	Actions map[string]action `json:"actions"`
}

func main() {
	var asked request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		log.Fatal(err)
	}
	verdicts := make([]verdict, 0, len(asked.Objects))
	for _, object := range asked.Objects {
		found, err := judge(object, asked.Scripts)
		if err != nil {
			log.Fatalf("%v, with %s", err, object)
		}
		verdicts = append(verdicts, found)
	}
	if err := json.NewEncoder(os.Stdout).Encode(verdicts); err != nil {
		log.Fatal(err)
	}
}

func judge(object json.RawMessage, known map[string]scripts) (verdict, error) {
	found := verdict{Actions: map[string]action{}}
	var typed unstructured.Unstructured
	if err := typed.UnmarshalJSON(object); err != nil {
		return found, err
	}
	result, err := status.Compute(&typed)
	if err != nil {
		return found, fmt.Errorf("kstatus: %w", err)
	}
	found.Kstatus = health{string(result.Status), result.Message}
	ours := known[typed.GetKind()]
	if err := run(ours.Health, object, &found.Argo); err != nil {
		return found, fmt.Errorf("health: %w", err)
	}
	if ours.Discovery == "" {
		return found, nil
	}
	if err := run(ours.Discovery, object, &found.Actions); err != nil {
		return found, fmt.Errorf("discovery: %w", err)
	}
	for name, offered := range found.Actions {
		if err := run(ours.Actions[name], object, &offered.After); err != nil {
			return found, fmt.Errorf("action %s: %w", name, err)
		}
		found.Actions[name] = offered
	}
	return found, nil
}

// run gives a script what Argo CD gives it: `obj`, the libraries package, base and table, `require("os")` with time
// and date, and one second. There is no string, no math and no global os.
func run(script string, object json.RawMessage, result any) error {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, open := range []lua.LGFunction{lua.OpenPackage, lua.OpenBase, lua.OpenTable} {
		state.Push(state.NewFunction(open))
		state.Call(0, 0)
	}
	state.PreloadModule(lua.OsLibName, safeOs)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(ctx)
	value, err := luajson.Decode(state, object)
	if err != nil {
		return err
	}
	state.SetGlobal("obj", value)
	if err := state.DoString(script); err != nil {
		return err
	}
	returned, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return fmt.Errorf("returned %s instead of a table", state.Get(-1).Type())
	}
	text, err := luajson.Encode(returned)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, result)
}

func safeOs(state *lua.LState) int {
	lua.OpenOs(state)
	all := state.CheckTable(-1)
	state.SetGlobal(lua.OsLibName, lua.LNil)
	safe := state.NewTable()
	for _, name := range []string{"time", "date"} {
		safe.RawSetString(name, all.RawGetString(name))
	}
	state.Push(safe)
	return 1
}
