//! Fields that the path of a file tells. Pure; asked once per source.

use regex::Regex;

use super::own_fields::Field;
use super::pattern::field_path;

/// What an input adds to its records: constants, and what is read from the path. The path wins, so that a constant can
/// stand for files whose path does not fit.
#[derive(Clone, Debug, Default)]
pub struct InputFields {
    pub constants: Vec<Field>,
    pub from_path: Vec<PathRule>,
}

/// Expressions for one kind of path; the first that matches counts.
#[derive(Clone, Debug)]
pub struct PathRule {
    expressions: Vec<Regex>,
    overwrite: bool,
    /// Whether a path that fits none is worth a word.
    pub is_expected: bool,
}

impl InputFields {
    /// The fields of the source at `path`.
    pub fn at(&self, path: &str) -> Vec<Field> {
        self.constants.iter().cloned().chain(self.from_path.iter().flat_map(|rule| rule.read(path))).collect()
    }

    /// Whether each rule that is expected to fits `path`.
    pub fn fit(&self, path: &str) -> bool {
        let fits = |rule: &PathRule| rule.expressions.iter().any(|expression| expression.is_match(path));
        self.from_path.iter().filter(|rule| rule.is_expected).all(fits)
    }

    /// One field of each name that there can be, to check them with the configuration.
    pub fn all(&self) -> Vec<Field> {
        let names = self.from_path.iter().flat_map(|rule| rule.expressions.iter().flat_map(Regex::capture_names));
        let possible = names.flatten().map(|name| Field { path: field_path(name), value: "".into(), overwrite: true });
        self.constants.iter().cloned().chain(possible).collect()
    }
}

impl PathRule {
    /// The named groups of an expression that must match the whole path.
    ///
    /// # Errors
    /// If it is no regular expression.
    pub fn new(expression: &str, overwrite: bool) -> Result<Self, regex::Error> {
        Ok(Self { expressions: vec![Regex::new(&format!("^(?:{expression})$"))?], overwrite, is_expected: true })
    }

    /// The names that a kubelet gives to the logs of containers, below whatever folder they are mounted, and to rotated
    /// ones. The fields are those of ECS and Filebeat.
    pub fn kubernetes(overwrite: bool, is_expected: bool) -> Self {
        const PODS: &str = r"/pods/(?P<kubernetes.namespace>[^/_]+)_(?P<kubernetes.pod.name>[^/_]+)_(?P<kubernetes.pod.uid>[^/_]+)/(?P<kubernetes.container.name>[^/]+)/[0-9]+\.log(?:\.[^/]*)?$";
        const CONTAINERS: &str = r"/containers/(?P<kubernetes.pod.name>[^/_]+)_(?P<kubernetes.namespace>[^/_]+)_(?P<kubernetes.container.name>[^/_]+)-(?P<container.id>[0-9a-f]{64})\.log$";
        let compile = |expression| Regex::new(expression).expect("a constant that the tests compile");
        Self { expressions: [PODS, CONTAINERS].map(compile).into(), overwrite, is_expected }
    }

    fn read(&self, path: &str) -> Vec<Field> {
        let matched = self.expressions.iter().find_map(|expression| Some((expression, expression.captures(path)?)));
        let Some((expression, captures)) = matched else { return Vec::new() };
        let named = expression.capture_names().flatten();
        let field = |name| {
            let value = captures.name(name)?.as_str().into();
            Some(Field { path: field_path(name), value, overwrite: self.overwrite })
        };
        named.filter_map(field).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::own_fields;

    fn read(fields: &InputFields, path: &str) -> Vec<(String, String)> {
        let value = |field: Field| (field.path, field.value.as_str().unwrap_or_default().to_owned());
        fields.at(path).into_iter().map(value).collect()
    }

    fn check(fields: &InputFields, path: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        assert_eq!(read(fields, path), expected, "{path}");
        assert_eq!(fields.fit(path), !expected.is_empty(), "{path}");
    }

    #[test]
    fn paths_of_a_kubelet_tell_namespace_pod_and_container() {
        let fields = InputFields { constants: Vec::new(), from_path: vec![PathRule::kubernetes(true, true)] };
        let uid = "7a8c9b0e-1f2d-4c3b-9a8e-0d1c2b3a4f5e";
        let expected = [
            ("kubernetes.namespace", "shop"),
            ("kubernetes.pod.name", "checkout-6d5f.x"),
            ("kubernetes.pod.uid", uid),
            ("kubernetes.container.name", "app-1"),
        ];
        for file in ["0.log", "12.log", "0.log.20261123-063017", "0.log.20261123-063017.gz"] {
            check(&fields, &format!("/var/log/pods/shop_checkout-6d5f.x_{uid}/app-1/{file}"), &expected);
        }
        check(&fields, &format!("/host/var/log/pods/shop_checkout-6d5f.x_{uid}/app-1/0.log"), &expected);
        let id = "0123456789abcdef".repeat(4);
        check(
            &fields,
            &format!("/var/log/containers/checkout-6d5f.x_shop_app-1-{id}.log"),
            &[
                ("kubernetes.pod.name", "checkout-6d5f.x"),
                ("kubernetes.namespace", "shop"),
                ("kubernetes.container.name", "app-1"),
                ("container.id", &id),
            ],
        );
        for other in ["/var/log/app.log", "/var/log/pods/shop_checkout/app/0.log", "/var/log/containers/a_b_c-123.log"]
        {
            check(&fields, other, &[]);
        }
        assert_eq!(own_fields::check(&fields.all()), Ok(()));
    }

    #[test]
    fn named_groups_of_an_expression_are_fields_and_win_over_constants() {
        let rule = PathRule::new(r"/srv/(?P<service.name>[^/]+)/(?P<labels[tier]>[a-z]+)?/?.*\.log", true).unwrap();
        let constant = Field { path: "service.name".to_owned(), value: "unknown".into(), overwrite: true };
        let fields = InputFields { constants: vec![constant], from_path: vec![rule] };
        let shop = ("service.name".to_owned(), "shop".to_owned());
        let unknown = ("service.name".to_owned(), "unknown".to_owned());
        let tier = ("labels.tier".to_owned(), "gold".to_owned());
        assert_eq!(read(&fields, "/srv/shop/gold/a.log"), [unknown.clone(), shop.clone(), tier]);
        assert_eq!(read(&fields, "/srv/shop/1.log"), [unknown.clone(), shop]);
        assert_eq!(read(&fields, "/srv/shop/gold/a.log.1"), [unknown]);
        assert!(!fields.fit("/srv/shop/gold/a.log.1"));
        let origin =
            own_fields::Origin { host_name: "h", path: "p", source: millrace_common::record::SourceId::from_u64(1) };
        let own = own_fields::OwnFields::new(origin, &fields.at("/srv/shop/1.log")).unwrap();
        assert_eq!(own.leaves.iter().filter(|leaf| leaf.path == "service.name").count(), 1);
    }
}
