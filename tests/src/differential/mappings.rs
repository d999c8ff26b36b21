//! Mappings and index settings at random.

use serde_json::{Map, Value, json};

use super::Product;
use super::random::Random;
use super::values::{FORMATS, NAMES, NUMBERS};

/// Makes mappings of what a server understands.
pub(super) struct Mappings<'r> {
    pub random: &'r mut Random,
    pub product: Product,
    /// Whether `dynamic: runtime` may appear.
    pub has_runtime: bool,
}

impl Mappings<'_> {
    pub fn settings(&mut self) -> Value {
        let mut settings = json!({
            "number_of_shards": 1,
            "number_of_replicas": 0,
            "refresh_interval": "-1",
            "translog.durability": "async",
            "mapping.total_fields.limit": self.random.pick(&[1_000, 1_000, 14]),
            "mapping.depth.limit": self.random.pick(&[20, 20, 4]),
        });
        if self.random.chance(10) {
            settings["mapping.coerce"] = false.into();
        }
        if self.random.chance(10) {
            settings["mapping.ignore_malformed"] = true.into();
        }
        if self.random.chance(10) {
            settings["mapping.nested_objects.limit"] = 2.into();
        }
        if self.random.chance(10) && self.product.is_elasticsearch_since(8, 14) {
            settings["mapping.total_fields.ignore_dynamic_beyond_limit"] = true.into();
        }
        settings
    }

    pub fn mapping(&mut self) -> Value {
        let mut mapping = self.object(0);
        if self.random.chance(25) {
            mapping["date_detection"] = self.random.pick(&[true, false]).into();
        }
        if self.random.chance(25) {
            mapping["numeric_detection"] = true.into();
        }
        if self.random.chance(12) {
            let formats = [json!(["yyyy-MM-dd"]), json!(["dd/MMM/yyyy:HH:mm:ss Z", "epoch_second"]), json!([])];
            mapping["dynamic_date_formats"] = self.random.pick(&formats);
        }
        if self.has_runtime && self.random.chance(40) {
            let name = format!("{}{}", self.random.pick(NAMES), self.random.pick(&["", ".h"]));
            mapping["runtime"] = json!({name: {"type": "keyword"}});
        }
        if self.random.chance(40) {
            let templates: Vec<Value> =
                (0..1 + self.random.below(3)).map(|i| json!({format!("t{i}"): self.template()})).collect();
            mapping["dynamic_templates"] = templates.into();
        }
        if self.random.chance(6) {
            let fields = super::known_fields(&mapping);
            let target = self.random.pick(&fields).path;
            mapping["properties"]["alias1"] = json!({"type": "alias", "path": target});
        }
        if self.random.chance(2) {
            mapping["enabled"] = false.into();
        }
        mapping
    }

    fn object(&mut self, depth: usize) -> Value {
        let mut properties = Map::new();
        for _ in 0..1 + self.random.below(4) {
            let name = self.random.pick(NAMES);
            let inner = if depth < 3 && self.random.chance(30) { self.object(depth + 1) } else { self.field() };
            let name =
                if self.random.chance(8) { format!("{name}.{}", self.random.pick(NAMES)) } else { name.to_owned() };
            properties.insert(name, inner);
        }
        let mut object = json!({"properties": properties});
        if self.random.chance(if depth == 0 { 90 } else { 40 }) {
            let runtime = if self.has_runtime { "runtime" } else { "true" };
            let templates_only =
                if self.product.is_opensearch_since(2, 19) { "strict_allow_templates" } else { "true" };
            let templates_or_none =
                if self.product.is_opensearch_since(3, 3) { "false_allow_templates" } else { "true" };
            let words = ["true", "true", "false", "strict", "false", runtime, templates_only, templates_or_none];
            object["dynamic"] = self.random.pick(&words).into();
        }
        let is_plain = !object.to_string().contains("nested") && !object.to_string().contains("enabled");
        match self.random.below(100) {
            0..12 if depth > 0 => object["type"] = "nested".into(),
            12..25 if depth > 0 => object["enabled"] = false.into(),
            25..38 if is_plain && self.product.is_elasticsearch_since(8, 3) => object["subobjects"] = false.into(),
            _ => {}
        }
        object
    }

    fn field(&mut self) -> Value {
        let flattened = if self.product.is_opensearch { "flat_object" } else { "flattened" };
        let types = ["boolean", "date", "date_nanos", "ip", "keyword", "text", flattened];
        let ranges = ["integer_range", "long_range", "float_range", "double_range", "date_range", "ip_range"];
        let type_name = match self.random.below(100) {
            0..45 => self.random.pick(NUMBERS),
            45..46 => self.random.pick(&ranges),
            _ => self.random.pick(&types),
        };
        let mut field = Map::from_iter([("type".to_owned(), type_name.into())]);
        self.options(type_name, &mut field);
        Value::Object(field)
    }

    fn options(&mut self, type_name: &str, field: &mut Map<String, Value>) {
        let random = &mut *self.random;
        let mut set = |name: &str, value: Value| field.insert(name.to_owned(), value);
        let is_number = NUMBERS.contains(&type_name);
        let is_range = type_name.ends_with("_range");
        if is_number && random.chance(20) {
            set("coerce", random.pick(&[true, false]).into());
        }
        if !["keyword", "text", "flattened", "flat_object"].contains(&type_name) && !is_range && random.chance(20) {
            set("ignore_malformed", true.into());
        }
        if type_name.starts_with("date") && !is_range && random.chance(85) {
            set("format", random.pick(FORMATS).0.into());
        }
        if type_name == "keyword" && random.chance(50) {
            set("ignore_above", random.pick(&[1, 5, 256, 8_191, 40_000]).into());
        }
        if type_name == "keyword" && random.chance(8) {
            set("normalizer", "lowercase".into());
        }
        if ["keyword", "long", "boolean", "ip", "date"].contains(&type_name) && random.chance(10) {
            set("index", false.into());
            if random.chance(70) {
                set("doc_values", false.into());
            }
        }
        let null_value = match type_name {
            "keyword" => Some(json!("N")),
            "boolean" => Some(json!(true)),
            "ip" => Some(json!("1.2.3.4")),
            _ if is_number => Some(json!(1)),
            _ => None,
        };
        if let Some(value) = null_value.filter(|_| random.chance(10)) {
            set("null_value", value);
        }
        if type_name == "flattened" && random.chance(30) {
            set("depth_limit", random.pick(&[1, 2, 3]).into());
        }
        if type_name == "flattened" && random.chance(30) {
            set("ignore_above", random.pick(&[5, 8_191]).into());
        }
        if type_name == "text" && random.chance(5) {
            set("index", false.into());
        }
        if ["text", "keyword", "long", "ip"].contains(&type_name) && random.chance(20) {
            set("fields", json!({"x": {"type": random.pick(&["keyword", "long", "ip", "date", "text"])}}));
        }
        if ["text", "keyword", "ip", "boolean", "long"].contains(&type_name) && random.chance(7) {
            set("copy_to", random.pick(&["a", "zz", "b.c"]).into());
        }
    }

    fn template(&mut self) -> Value {
        let has_lists = self.product.is_elasticsearch_since(8, 9);
        let random = &mut *self.random;
        let mut template = Map::new();
        let mut set = |name: &str, value: Value| template.insert(name.to_owned(), value);
        let kinds = ["string", "long", "double", "boolean", "date", "object", "*"];
        let kind = random.chance(50).then(|| random.pick(&kinds));
        match kind {
            Some("long" | "double") if has_lists && random.chance(40) => {
                set("match_mapping_type", json!(["long", "double"]));
            }
            Some(kind) => {
                set("match_mapping_type", kind.into());
            }
            None if has_lists && random.chance(20) => {
                set("unmatch_mapping_type", random.pick(&[json!("object"), json!(["object", "string"])]));
            }
            None => {}
        }
        if random.chance(20) {
            set("match_pattern", "regex".into());
            set("match", random.pick(&["h\\d?", ".*1", "^i.$", "(h|i)1"]).into());
        } else {
            if random.chance(40) || kind.is_none() {
                set("match", random.pick(&["*", "h*", "*1", "i1", "new*"]).into());
            }
            if has_lists && random.chance(10) {
                set("match", json!(["h*", "*1"]));
            }
            if random.chance(20) {
                set("unmatch", random.pick(&["*2", "h"]).into());
            }
            if random.chance(20) {
                set("path_match", random.pick(&["a.*", "*.h", "b.*.h1", "*"]).into());
            }
            if random.chance(10) {
                set("path_unmatch", random.pick(&["b.*", "*.i1"]).into());
            }
        }
        if kind == Some("object") {
            let flattened = if self.product.is_opensearch { "flat_object" } else { "flattened" };
            let bodies = [
                json!({"type": "object", "enabled": false}),
                json!({"type": flattened}),
                json!({"type": "object", "dynamic": false}),
                json!({"type": "nested"}),
                json!({"type": "object", "properties": {"from_template": {"type": "long"}}}),
            ];
            set("mapping", random.pick(&bodies));
        } else if self.has_runtime && random.chance(20) {
            set("runtime", random.pick(&[json!({}), json!({"type": "long"})]));
        } else {
            let bodies = [
                json!({"type": "keyword"}),
                json!({"type": "keyword", "ignore_above": 10}),
                json!({"type": "{dynamic_type}"}),
                json!({"type": "text"}),
                json!({"type": "long"}),
                json!({"type": "date", "ignore_malformed": true}),
                json!({"type": "text", "fields": {"raw": {"type": "keyword", "ignore_above": 5}}}),
                json!({"type": "{dynamic_type}", "store": true}),
            ];
            set("mapping", random.pick(&bodies));
        }
        Value::Object(template)
    }
}
