package hydra

import "embed"

// builtinConf holds the config groups that Hydra brings along.
//
//go:embed conf
var builtinConf embed.FS

// hydraSchema returns the type of the node "hydra" with its defaults. Names and
// order are those of Hydra, since they appear in .hydra/hydra.yaml.
func hydraSchema() *schema {
	str := &schema{kind: stringSchema}
	maybeStr := &schema{kind: stringSchema, optional: true}
	boolean := &schema{kind: boolSchema, optional: true}
	integer := &schema{kind: intSchema}
	list := func(element *schema) *schema { return &schema{kind: listSchema, element: element} }
	dict := func(element *schema) *schema { return &schema{kind: dictSchema, element: element} }
	structure := func(name string, fields ...field) *schema {
		return &schema{kind: structSchema, name: name, fields: fields}
	}
	defaults := Map{} // of the fields of a struct

	return structure("HydraConf",
		field{"mode", &schema{kind: enumSchema, name: "RunMode", optional: true, members: []member{{"RUN", 1}, {"MULTIRUN", 2}}}, nil},
		field{"searchpath", list(str), []any{}},
		field{"run", structure("RunDir", field{"dir", str, missing}), defaults},
		field{"sweep", structure("SweepDir", field{"dir", str, missing}, field{"subdir", str, missing}), defaults},
		field{"hydra_logging", dict(nil), missing},
		field{"job_logging", dict(nil), missing},
		field{"sweeper", nil, missing},
		field{"launcher", nil, missing},
		field{"callbacks", dict(nil), Map{}},
		field{"help", structure("HelpConf",
			field{"app_name", str, missing}, field{"header", str, missing},
			field{"footer", str, missing}, field{"template", str, missing}), defaults},
		field{"hydra_help", structure("HydraHelpConf",
			field{"hydra_help", str, missing}, field{"template", str, missing}), defaults},
		field{"output_subdir", maybeStr, ".hydra"},
		field{"overrides", structure("OverridesConf",
			field{"hydra", list(str), []any{}}, field{"task", list(str), []any{}}), defaults},
		field{"job", structure("JobConf",
			field{"name", str, missing},
			field{"chdir", boolean, nil},
			field{"override_dirname", str, missing},
			field{"id", str, missing},
			field{"num", integer, missing},
			field{"config_name", maybeStr, missing},
			field{"env_set", dict(str), Map{}},
			field{"env_copy", list(str), []any{}},
			field{"config", structure("JobConfig",
				field{"override_dirname", structure("OverrideDirname",
					field{"kv_sep", str, "="},
					field{"item_sep", str, ","},
					field{"exclude_keys", list(str), []any{}}), defaults}), defaults}), defaults},
		field{"runtime", structure("RuntimeConf",
			field{"version", str, missing},
			field{"version_base", str, missing},
			field{"cwd", str, missing},
			field{"config_sources", list(structure("ConfigSourceInfo",
				field{"path", str, missing}, field{"schema", str, missing}, field{"provider", str, missing})), missing},
			field{"output_dir", str, missing},
			field{"choices", dict(nil), Map{}}), defaults},
		field{"verbose", nil, false},
	)
}
