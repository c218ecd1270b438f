package config

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

//go:embed reference_intro.md
var intro string

// TestGeneratedReference fails when the pages on disk are not those of the key
// tables.
func TestGeneratedReference(t *testing.T) {
	var b strings.Builder
	b.WriteString(intro)
	referSection(&b, new(file), "")
	golden(t, "../../docs/configuration.md", b.String())

	schema := schemaSection(new(file))
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["title"] = "Configuration of Headgate"
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(schema); err != nil {
		t.Fatal(err)
	}
	golden(t, "../../docs/headgate.schema.json", out.String())
}

// inside is the section that a key leads to, if any, and its path.
func inside(k key, path string) (section, string) {
	switch into := k.into.(type) {
	case section:
		return into, path + k.name
	case group:
		s, _ := into.blank().(section)
		if into.kind() == "list" {
			return s, path + k.name + "[]"
		}
		return s, path + k.name + ".NAME"
	}
	return nil, ""
}

func referSection(b *strings.Builder, s section, path string) {
	b.WriteString("\n| key | type | default | meaning |\n|---|---|---|---|\n")
	for _, k := range s.keys() {
		def := "–"
		switch {
		case k.required:
			def = "required"
		case k.def != "":
			def = "`" + k.def + "`"
		}
		doc := strings.ReplaceAll(k.doc, "|", `\|`)
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", k.name, kindOf(k, path), def, doc)
	}
	for _, k := range s.keys() {
		if inner, deeper := inside(k, path); inner != nil {
			fmt.Fprintf(b, "\n## %s\n\n%s\n", deeper, k.doc)
			referSection(b, inner, deeper+".")
		}
	}
}

// kindOf is the type column.
func kindOf(k key, path string) string {
	inner, deeper := inside(k, path)
	link := fmt.Sprintf("[%s](#%s)", deeper, strings.NewReplacer(".", "", "[", "", "]", "").Replace(strings.ToLower(deeper)))
	kind := "mapping"
	switch into := k.into.(type) {
	case section:
		return link
	case group:
		if inner != nil {
			return into.kind() + ", " + link
		}
		kind = "list of " + kindOf(key{into: into.blank(), oneOf: k.oneOf}, path)
		if k.single {
			kind += ", or one"
		}
		return kind
	case interface{ kind() string }:
		kind = into.kind()
	}
	if len(k.oneOf) > 0 {
		kind = "`" + strings.Join(k.oneOf, "`, `") + "`"
	}
	if k.min != "" || k.max != "" {
		kind += ", " + rangeOf(k)
	}
	return kind
}

func schemaSection(s section) map[string]any {
	properties := make(map[string]any)
	required := []string{}
	for _, k := range s.keys() {
		one := schemaKey(k)
		one["description"] = strings.ReplaceAll(k.doc, "`", "")
		properties[k.name] = one
		if k.required && k.name != "version" { // not in conf.d
			required = append(required, k.name)
		}
	}
	return map[string]any{"type": "object", "additionalProperties": false, "properties": properties, "required": required}
}

func schemaKey(k key) map[string]any {
	switch into := k.into.(type) {
	case section:
		return orNull(schemaSection(into))
	case group:
		item := key{into: into.blank(), oneOf: k.oneOf, min: k.min, max: k.max}
		element := schemaKey(item)
		if into.kind() != "list" {
			return orNull(map[string]any{"type": "object", "additionalProperties": element,
				"propertyNames": map[string]any{"pattern": namePattern.String()}})
		}
		list := orNull(map[string]any{"type": "array", "items": element})
		if k.single {
			return map[string]any{"anyOf": []any{list, element}}
		}
		return list
	case interface{ kind() string }:
		return schemaScalar(k, into.kind())
	}
	return map[string]any{"type": "object"}
}

// orNull allows a key whose contents are commented out.
func orNull(schema map[string]any) map[string]any {
	schema["type"] = []string{schema["type"].(string), "null"}
	return schema
}

func schemaScalar(k key, kind string) map[string]any {
	schema := map[string]any{"type": "string"}
	switch kind {
	case "name":
		schema["pattern"] = namePattern.String()
	case "true or false":
		schema["type"] = "boolean"
	case "whole number", "raw value":
		schema["type"] = "integer"
		if k.min != "" {
			schema["minimum"] = json.Number(k.min)
		}
		if k.max != "" {
			schema["maximum"] = json.Number(k.max)
		}
	case "raw value, nan or sunspec":
		schema["type"] = []string{"integer", "string"}
	case "number":
		schema["type"] = "number"
	case "duration":
		schema = map[string]any{"type": []string{"string", "integer"}, "pattern": `^([0-9]+d)?([0-9.]+(ns|us|µs|ms|s|m|h))*$`, "maximum": 0}
	case "size":
		schema = map[string]any{"type": []string{"string", "integer"}, "pattern": "^[0-9]+ ?([KMGT]i)?B$", "maximum": 0}
	}
	if len(k.oneOf) > 0 {
		schema["enum"] = slices.Clone(k.oneOf)
	}
	if k.def != "" && schema["type"] == "string" {
		schema["default"] = k.def
	}
	return schema
}
