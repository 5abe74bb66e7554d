//! Which files of a repository, directory or image make up the model. Pure: paths in, paths out.

/// Why no choice could be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unselected {
    /// There are no weights in a format that can be served.
    NoWeights,
    /// There are several models; these files are the choices.
    Ambiguous(Vec<String>),
    /// The file that was asked for is not there; these files of weights are.
    NoSuchFile(Vec<String>),
}

impl Unselected {
    /// What to tell the user; `choose` says how one file is chosen.
    pub(crate) fn advice(&self, choose: &str) -> String {
        match self {
            Self::NoWeights => "it holds no *.safetensors and no *.gguf file at its top, and other formats cannot be \
                served: convert the model, or use another repository"
                .to_owned(),
            Self::Ambiguous(choices) => {
                format!(
                    "it holds several models and one must be chosen: {choose}; it has {}",
                    list(choices)
                )
            }
            Self::NoSuchFile(choices) if choices.is_empty() => {
                "it holds no such file of weights, nor any other".to_owned()
            }
            Self::NoSuchFile(choices) => format!("it holds no such file of weights; it has {}", list(choices)),
        }
    }
}

/// Chooses the files to serve among `paths`, sorted. `wanted` names the file of weights, where the user did.
///
/// Safetensors win over GGUF, because they come with the configuration they belong to. Only files at the top count:
/// folders below hold other formats and training states.
pub(crate) fn select<'a>(
    paths: impl IntoIterator<Item = &'a str>,
    wanted: Option<&str>,
) -> Result<Vec<String>, Unselected> {
    let mut paths: Vec<&str> = paths.into_iter().collect();
    paths.sort_unstable();
    paths.dedup();
    let (folder, weights) = match wanted {
        Some(wanted) => (folder_of(wanted), wanted_weights(&paths, wanted)?),
        None => ("", top_weights(&paths)?),
    };
    let companions = weights.iter().any(|path| is_safetensors(path));
    let mut chosen: Vec<String> = paths
        .iter()
        .filter(|path| weights.contains(*path) || (companions && folder_of(path) == folder && is_companion(path)))
        .map(|path| (*path).to_owned())
        .collect();
    chosen.sort_unstable();
    Ok(chosen)
}

/// Chooses like [`select`] where the model may lie in a folder: the one nearest to the top that holds weights. Gives
/// that folder, and the chosen files with it.
pub(crate) fn select_nested<'a>(paths: impl IntoIterator<Item = &'a str>) -> Result<(String, Vec<String>), Unselected> {
    let paths: Vec<&str> = paths.into_iter().collect();
    let depth = |path: &str| path.matches('/').count();
    let weights = || {
        paths
            .iter()
            .copied()
            .filter(|path| is_safetensors(path) || is_gguf(path))
    };
    let nearest = weights().map(depth).min().ok_or(Unselected::NoWeights)?;
    let mut folders: Vec<&str> = weights().filter(|path| depth(path) == nearest).map(folder_of).collect();
    folders.sort_unstable();
    folders.dedup();
    let [folder] = folders.as_slice() else {
        return Err(Unselected::Ambiguous(folders.into_iter().map(str::to_owned).collect()));
    };
    if folder.is_empty() {
        return select(paths, None).map(|files| (String::new(), files));
    }
    let prefix = format!("{folder}/");
    let files = select(paths.iter().filter_map(|path| path.strip_prefix(&prefix)), None)?;
    Ok((
        (*folder).to_owned(),
        files.iter().map(|file| format!("{prefix}{file}")).collect(),
    ))
}

/// Whether a file belongs to a model in a serveable format; other files of an image are not even unpacked.
pub(crate) fn is_model_file(path: &str) -> bool {
    is_safetensors(path) || is_gguf(path) || is_companion(path)
}

fn top_weights<'a>(paths: &[&'a str]) -> Result<Vec<&'a str>, Unselected> {
    let top = |matches: fn(&str) -> bool| -> Vec<&'a str> {
        paths
            .iter()
            .copied()
            .filter(|path| !path.contains('/') && matches(path))
            .collect()
    };
    let safetensors = top(is_safetensors);
    if let Some(indexed) = indexed_shards(paths, &safetensors) {
        return Ok(indexed);
    }
    if safetensors.contains(&"model.safetensors") {
        return Ok(vec!["model.safetensors"]);
    }
    let weights = if safetensors.is_empty() {
        top(is_gguf)
    } else {
        safetensors
    };
    match weights.as_slice() {
        [] => Err(Unselected::NoWeights),
        [first, rest @ ..] if rest.iter().all(|path| same_shards(first, path)) => Ok(weights),
        _ => Err(Unselected::Ambiguous(
            weights.iter().map(|path| (*path).to_owned()).collect(),
        )),
    }
}

/// The shards that `model.safetensors.index.json` speaks of: other shards (fp16 variants) have another prefix.
fn indexed_shards<'a>(paths: &[&'a str], safetensors: &[&'a str]) -> Option<Vec<&'a str>> {
    if !paths.contains(&"model.safetensors.index.json") {
        return None;
    }
    let shards: Vec<&str> = safetensors
        .iter()
        .copied()
        .filter(|path| shard_prefix(path).is_some_and(|(prefix, _)| prefix == "model"))
        .collect();
    (!shards.is_empty()).then_some(shards)
}

fn wanted_weights<'a>(paths: &[&'a str], wanted: &str) -> Result<Vec<&'a str>, Unselected> {
    let is_weights = |path: &str| is_safetensors(path) || is_gguf(path);
    if !is_weights(wanted) || !paths.contains(&wanted) {
        let choices = paths
            .iter()
            .filter(|path| is_weights(path))
            .map(|path| (*path).to_owned())
            .collect();
        return Err(Unselected::NoSuchFile(choices));
    }
    Ok(paths
        .iter()
        .copied()
        .filter(|path| *path == wanted || same_shards(wanted, path))
        .collect())
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn is_safetensors(path: &str) -> bool {
    path.ends_with(".safetensors")
}

fn is_gguf(path: &str) -> bool {
    path.ends_with(".gguf")
}

/// Configuration, tokenizer, templates and licence-free text files that engines read next to safetensors.
fn is_companion(path: &str) -> bool {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    matches!(
        name,
        "config.json"
            | "generation_config.json"
            | "special_tokens_map.json"
            | "added_tokens.json"
            | "preprocessor_config.json"
            | "vocab.json"
            | "merges.txt"
            | "params.json"
            | "model.safetensors.index.json"
    ) || (name.starts_with("tokenizer") && (name.ends_with(".json") || name.ends_with(".model")))
        || name.starts_with("chat_template")
}

/// `PREFIX-00001-of-00003.EXTENSION` as prefix and count.
fn shard_prefix(path: &str) -> Option<(&str, &str)> {
    let (stem, _) = path.rsplit_once('.')?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (prefix, index) = rest.rsplit_once('-')?;
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(index) && is_number(count)).then_some((prefix, count))
}

fn same_shards(left: &str, right: &str) -> bool {
    let shards = shard_prefix(left);
    shards.is_some() && shards == shard_prefix(right)
}

fn list(choices: &[String]) -> String {
    const SHOWN: usize = 12;
    let mut text = choices
        .iter()
        .take(SHOWN)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if choices.len() > SHOWN {
        text.push_str(&format!(" and {} more", choices.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(paths: &[&str], wanted: Option<&str>) -> Result<String, Unselected> {
        select(paths.iter().copied(), wanted).map(|files| files.join(" "))
    }

    #[test]
    fn safetensors_come_with_their_companions() {
        let paths = [
            "README.md",
            ".gitattributes",
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "model.safetensors",
            "model.fp16.safetensors",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "onnx/config.json",
            "m.Q4_K_M.gguf",
            "chat_template.jinja",
        ];
        assert_eq!(
            chosen(&paths, None).unwrap(),
            "chat_template.jinja config.json model.safetensors tokenizer.json tokenizer_config.json"
        );
        assert_eq!(chosen(&paths, Some("m.Q4_K_M.gguf")).unwrap(), "m.Q4_K_M.gguf");
    }

    #[test]
    fn shards_of_the_index_win() {
        let paths = [
            "consolidated.safetensors",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.fp16-00001-of-00001.safetensors",
            "model.safetensors.index.json",
        ];
        assert_eq!(
            chosen(&paths, None).unwrap(),
            "model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json"
        );
    }

    #[test]
    fn one_gguf_serves_several_must_be_chosen() {
        assert_eq!(chosen(&["m.gguf", "README.md"], None).unwrap(), "m.gguf");
        let several = ["m.Q4_K_M.gguf", "m.Q8_0.gguf", "f16/m.gguf"];
        let error = chosen(&several, None).unwrap_err();
        assert_eq!(
            error,
            Unselected::Ambiguous(vec!["m.Q4_K_M.gguf".into(), "m.Q8_0.gguf".into()])
        );
        assert!(
            error
                .advice("add #FILE")
                .contains("add #FILE; it has m.Q4_K_M.gguf, m.Q8_0.gguf")
        );
        assert_eq!(chosen(&several, Some("f16/m.gguf")).unwrap(), "f16/m.gguf");
        assert!(matches!(chosen(&several, Some("x.gguf")), Err(Unselected::NoSuchFile(all)) if all.len() == 3));
        let split = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
        assert_eq!(chosen(&split, None).unwrap(), split.join(" "));
        assert_eq!(chosen(&split, Some(split[0])).unwrap(), split.join(" "));
    }

    #[test]
    fn a_model_in_a_folder_is_found() {
        let nested = |paths: &[&str]| select_nested(paths.iter().copied());
        let (folder, files) =
            nested(&["models/a/config.json", "models/a/model.safetensors", "etc/config.json"]).unwrap();
        assert_eq!(folder, "models/a");
        assert_eq!(files, ["models/a/config.json", "models/a/model.safetensors"]);
        assert_eq!(
            nested(&["m.gguf", "x/n.gguf"]).unwrap(),
            (String::new(), vec!["m.gguf".to_owned()])
        );
        assert!(matches!(
            nested(&["a/m.gguf", "b/m.gguf"]),
            Err(Unselected::Ambiguous(_))
        ));
        assert_eq!(nested(&["a/config.json"]), Err(Unselected::NoWeights));
    }

    #[test]
    fn other_formats_are_refused() {
        assert_eq!(
            chosen(&["pytorch_model.bin", "config.json"], None),
            Err(Unselected::NoWeights)
        );
        assert_eq!(chosen(&[], None), Err(Unselected::NoWeights));
        assert!(matches!(
            chosen(&["config.json"], Some("config.json")),
            Err(Unselected::NoSuchFile(_))
        ));
    }

    #[test]
    fn long_lists_are_cut() {
        let many: Vec<String> = (0..20).map(|index| format!("m{index}.gguf")).collect();
        assert!(Unselected::Ambiguous(many).advice("x").ends_with("and 8 more"));
    }
}
