package migrate

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/headgate-io/headgate/southbound/modbus"
)

// maxColumns bounds a row.
const maxColumns = 64

// neuronColumns are those of Neuron's table of tags; the first four are needed.
var neuronColumns = []string{"group", "name", "address", "type", "attribute", "interval", "decimal", "bias", "precision", "description", "value"}

// neuron reads a table of tags as Neuron exports it, saved as CSV: the tags of one node.
func (r *Result) neuron(files []File) error {
	if r.options.URL == "" {
		return errors.New("a table of Neuron does not say where the device is: add --url, tcp://192.0.2.10 for example")
	}
	cfg := modbus.BusConfig{URL: r.options.URL}
	for _, f := range files {
		r.file = f.Name
		b, err := r.bus(1, "neuron", cfg)
		if err != nil {
			return fmt.Errorf("--url: %s", strings.TrimPrefix(err.Error(), "modbus: "))
		}
		t := neuronTable{Result: r, id: strings.TrimSuffix(path.Base(f.Name), path.Ext(f.Name)), bus: b, devices: make(map[int]*device)}
		if err := t.read(f); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		r.note(1, "a table does not say the node's byte order and start address: ABCD and 1 are taken; write order: to the device if the node has another")
	}
	return nil
}

type neuronTable struct {
	*Result
	id      string
	bus     *bus
	devices map[int]*device
}

// A row has what stands in each column.
type row map[string]string

func (t *neuronTable) read(f File) error {
	text := bytes.TrimPrefix(f.Text, []byte("\ufeff"))
	rows := csv.NewReader(bytes.NewReader(text))
	rows.FieldsPerRecord, rows.TrimLeadingSpace = -1, true
	if header, _, _ := bytes.Cut(text, []byte("\n")); !bytes.ContainsRune(header, ',') && bytes.ContainsRune(header, ';') {
		rows.Comma = ';' // as spreadsheets write it where the comma is the decimal point
	}
	var header []string
	for {
		record, err := rows.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("not CSV: %w; save the table as CSV, in UTF-8", err)
		}
		line, _ := rows.FieldPos(0)
		if header == nil {
			if header, err = t.header(record); err != nil {
				return err
			}
			continue
		}
		cells := make(row)
		for i, v := range record[:min(len(record), len(header))] {
			cells[header[i]] = strings.TrimSpace(v)
		}
		if strings.Join(record, "") != "" {
			t.row(line, cells)
		}
	}
	if header == nil {
		return errors.New("empty: export the tags of a group in Neuron, and save the table as CSV")
	}
	return nil
}

func (t *neuronTable) header(record []string) ([]string, error) {
	if len(record) > maxColumns {
		return nil, fmt.Errorf("over %d columns: is it a table of Neuron's tags?", maxColumns)
	}
	header := make([]string, len(record))
	for i, v := range record {
		header[i] = strings.ToLower(strings.TrimSpace(v))
		if header[i] != "" && (!slices.Contains(neuronColumns, header[i]) || header[i] == "description") {
			t.note(1, "column %s is not carried over", v)
		}
	}
	for _, need := range neuronColumns[:4] {
		if !slices.Contains(header, need) {
			return nil, fmt.Errorf("no column %s in the first line: export the tags in Neuron, and save the table as CSV with its first line", need)
		}
	}
	return header, nil
}

func (t *neuronTable) row(line int, cells row) {
	tag := modbus.Tag{Name: cells["name"]}
	if tag.Name == "" || cells["group"] == "" {
		t.leave(line, "%s: without name or group", tag.Name)
		return
	}
	unit, err := neuronAddress(cells, &tag)
	if err == nil {
		err = t.attribute(line, tag.Name, cells["attribute"])
	}
	if err == nil {
		err = neuronScale(cells, &tag)
	}
	interval, errInterval := t.interval(cells["interval"])
	switch {
	case err == nil && errInterval != nil:
		err = errInterval
		fallthrough
	case err != nil:
		t.leave(line, "%s: %v", tag.Name, err)
		return
	}
	d := t.devices[unit]
	if d == nil {
		d = t.device(line, fmt.Sprintf("%.50s-%d", t.id, unit), t.bus, unit)
		t.devices[unit] = d
	}
	tag.Group = t.group(d, line, cells["group"], interval)
	t.tag(d, line, tag)
}

func (t *neuronTable) interval(text string) (time.Duration, error) {
	if text == "" {
		if t.options.Interval == 0 {
			return 0, errors.New("the table does not say how often its group is read: add --interval, as the group has it in Neuron")
		}
		return t.options.Interval, nil
	}
	ms, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("interval %q is no number of milliseconds", text)
	}
	v := time.Duration(ms) * time.Millisecond
	return v, checkInterval(v)
}

var attributeSplit = regexp.MustCompile(`[^A-Za-z]+`)

// attribute reads what may be done with a tag.
func (t *neuronTable) attribute(line int, name, text string) error {
	var all []string
	for _, a := range attributeSplit.Split(strings.ToLower(text), -1) {
		switch a {
		case "":
		case "read", "write", "subscribe":
			all = append(all, a)
		default:
			return fmt.Errorf("attribute %q is none of Read, Write, Subscribe", text)
		}
	}
	if len(all) == 0 && text != "" {
		return fmt.Errorf("attribute %q: write Read, Write, Subscribe", text)
	}
	if slices.Contains(all, "write") && len(all) == 1 {
		return errors.New("it can only be written, and nothing is written that was not asked for by a command")
	}
	if slices.Contains(all, "write") {
		t.note(line, "%s can be written there: here it is only read; see writing in docs/modbus.md", name)
	}
	if slices.Contains(all, "subscribe") {
		t.note(line, "%s is sent only when it changes there: here each time that it is read", name)
	}
	return nil
}

var (
	neuronForm  = regexp.MustCompile(`^([0-9]{1,3})!([0134])([0-9]{1,6})(?:\.([0-9]{1,3})([HLDE]?))?(?:#([A-Z]{1,2}))?$`)
	neuronTypes = map[string]string{
		"INT16": "int16", "UINT16": "uint16", "INT32": "int32", "UINT32": "uint32", "INT64": "int64", "UINT64": "uint64",
		"FLOAT": "float32", "DOUBLE": "float64", "BIT": "bit", "STRING": "string", "BYTES": "bytes",
	}
	neuronTables = map[string]modbus.Table{"0": modbus.Coil, "1": modbus.Discrete, "3": modbus.Input, "4": modbus.Holding}
	neuronOrders = map[string]string{
		"1": "", "1L": "", "1B": "BA",
		"2": "", "2LL": "ABCD", "2LB": "BADC", "2BL": "CDAB", "2BB": "DCBA",
		"4": "", "4L": "ABCD", "4LL": "ABCD", "4LB": "BADC", "4BL": "CDAB", "4BB": "DCBA", "4B": "DCBA", "4WS": "CDABGHEF", "4WR": "EFGHABCD",
	}
)

// neuronAddress reads SLAVE!ADDRESS[.BIT][#ENDIAN][.LEN[H|L|D|E]] and the type.
func neuronAddress(cells row, tag *modbus.Tag) (unit int, err error) {
	m := neuronForm.FindStringSubmatch(cells["address"])
	if m == nil {
		return 0, fmt.Errorf("address %q is none of Neuron's Modbus drivers, 1!400001 for example", cells["address"])
	}
	unit, _ = strconv.Atoi(m[1])
	number, _ := strconv.Atoi(m[3])
	if unit > 247 || number < 1 || number > 65536 {
		return 0, fmt.Errorf("address %q: units go up to 247, and addresses from 1 to 65536", cells["address"])
	}
	tag.Table, tag.Address = neuronTables[m[2]], uint16(number-1)
	tag.Type = neuronTypes[strings.ToUpper(cells["type"])]
	if tag.Type == "" {
		return 0, fmt.Errorf("type %q is none of Neuron's Modbus drivers", cells["type"])
	}
	part, _ := strconv.Atoi(m[4])
	switch tag.Type {
	case "bit":
		if tag.Table == modbus.Coil || tag.Table == modbus.Discrete {
			tag.Type = "bool"
		}
		tag.Bit = part
	case "string":
		tag.Length, tag.Encoding = (part+1)/2, "utf8"
		switch m[5] {
		case "L":
			tag.Order = "BADC"
		case "D":
			tag.Length, tag.Byte = part, "lo"
		case "E":
			tag.Length, tag.Byte = part, "hi"
		}
	case "bytes":
		tag.Length = (part + 1) / 2
	}
	size := registersOf(tag.Type)
	if (m[4] != "" && tag.Type != "bit" && size > 0) || (m[5] != "" && tag.Type != "string") || m[6] != "" && (size == 0 || tag.Type == "bit" || tag.Type == "bool") {
		return 0, fmt.Errorf("address %q does not fit type %s", cells["address"], cells["type"])
	}
	if size > 0 {
		order, known := neuronOrders[strconv.Itoa(size)+m[6]]
		if !known {
			return 0, fmt.Errorf("#%s is no order of type %s", m[6], cells["type"])
		}
		tag.Order = order
	}
	return unit, nil
}

// neuronScale reads decimal, bias and precision.
func neuronScale(cells row, tag *modbus.Tag) error {
	numbers := make(map[string]float64)
	for _, key := range []string{"decimal", "bias", "precision"} {
		v, _, err := (&node{text: strings.ReplaceAll(cells[key], ",", ".")}).number()
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		numbers[key] = v
	}
	if scale := numbers["decimal"]; scale != 0 && scale != 1 {
		tag.Scale = &scale
	}
	tag.Offset = numbers["bias"]
	if digits := numbers["precision"]; digits != 0 && strings.HasPrefix(tag.Type, "float") {
		n := int(min(digits, 15))
		tag.Round = &n
	}
	return nil
}
