//! Chat templates: the model's own, in Jinja.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, context};

use crate::tokenizer::SpecialTokens;

const NAME: &str = "chat";

/// A message of a chat, with its content as plain text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
}

impl Message {
    fn value(&self) -> Value {
        Value::from_pairs([("role", self.role.as_str()), ("content", self.content.as_str())])
    }
}

/// Why messages could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The model has no template.
    #[error("the model has no chat template; use /v1/completions, or serve an instruction-tuned model")]
    Missing,
    /// The template refused the messages, or failed on them.
    #[error("the model's chat template does not accept these messages: {0}")]
    Refused(String),
}

/// A compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    special: SpecialTokens,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// When it is no Jinja, or uses what is not supported.
    pub fn new(source: String, special: SpecialTokens) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| TemplateError::Refused(error.to_string()))?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |_format: String| -> Result<Value, Error> {
            Err(Error::new(
                ErrorKind::InvalidOperation,
                "templates that ask for the time are not supported",
            ))
        });
        let compiled = environment.add_template_owned(NAME, source);
        compiled.map_err(|error| TemplateError::Refused(error.to_string()))?;
        Ok(Self { environment, special })
    }

    /// The prompt for the next answer.
    ///
    /// # Errors
    /// When the template raises an exception or cannot be evaluated.
    pub fn render(&self, messages: &[Message]) -> Result<String, TemplateError> {
        let refused = |error: Error| TemplateError::Refused(error.detail().unwrap_or("it failed").to_owned());
        let template = self.environment.get_template(NAME).map_err(refused)?;
        let values = context! {
            messages => messages.iter().map(Message::value).collect::<Vec<Value>>(),
            add_generation_prompt => true,
            bos_token => self.special.begin.clone().unwrap_or_default(),
            eos_token => self.special.end.clone().unwrap_or_default(),
        };
        template.render(values).map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: &str, content: &str) -> Message {
        Message {
            role: role.to_owned(),
            content: content.to_owned(),
        }
    }

    fn template(source: &str) -> ChatTemplate {
        let special = SpecialTokens {
            begin: Some("<s>".to_owned()),
            end: Some("</s>".to_owned()),
        };
        ChatTemplate::new(source.to_owned(), special).expect("a template")
    }

    #[test]
    fn chat_ml_with_a_default_system_message() {
        let chat = template(
            "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
             {{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}\
             {{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
             {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        );
        assert_eq!(
            chat.render(&[message("user", "Hi")]).expect("text"),
            "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn python_methods_and_special_tokens_work() {
        let chat = template("{{ bos_token }}{{ messages[0].content.strip().upper() }}{{ eos_token }}");
        assert_eq!(chat.render(&[message("user", " hi ")]).expect("text"), "<s>HI</s>");
    }

    #[test]
    fn an_exception_of_the_template_is_its_message() {
        let chat = template("{{ raise_exception('Roles must alternate') }}");
        let error = chat.render(&[message("user", "Hi")]).expect_err("refused").to_string();
        assert!(error.ends_with("Roles must alternate"), "{error}");
    }

    #[test]
    fn no_jinja_is_an_error() {
        assert!(ChatTemplate::new("{% if %}".to_owned(), SpecialTokens::default()).is_err());
    }
}
