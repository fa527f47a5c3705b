//! portreeve.toml(5), made from the configuration file that is shipped: it has every key with its default and says what it
//! means, and a test holds that it is true.

use std::fmt::Write;

/// The file.
const SHIPPED: &str = include_str!("../../../proxy-config/portreeve.toml");

const HEAD: &str = "\
.TH portreeve.toml 5 \"\" \"portreeve @VERSION@\"
.SH NAME
portreeve.toml \\- configuration of Portreeve
.SH SYNOPSIS
/etc/portreeve/portreeve.toml
.SH DESCRIPTION
";

const TAIL: &str = "\
.SH SEE ALSO
.BR portreeve\\-check (1),
.BR portreeve\\-portal (8),
.BR portreeve\\-broker (8)
";

/// The page.
pub(crate) fn page() -> String {
    format!("{HEAD}{}{TAIL}", body(SHIPPED))
}

/// Comments become text, keys paragraphs with a tag, sections headings. What stands behind a '#' without a space is a key
/// with its default.
fn body(file: &str) -> String {
    let mut page = String::new();
    let mut text: Vec<&str> = Vec::new();
    for line in file.lines() {
        if let Some(comment) = line.strip_prefix("# ").or_else(|| (line == "#").then_some("")) {
            text.push(comment);
        } else if line.starts_with('[') {
            tell(&mut page, &mut text);
            let _ = writeln!(page, ".SH {}", quoted(line));
        } else if let Some((key, value)) = line.trim_start_matches('#').split_once(" = ") {
            let value = value.split(" # ").next().unwrap_or(value).trim_end();
            let _ =
                writeln!(page, ".TP\n.BR {} \" = {}\"", escaped(key), escaped(value).replace('"', "\\(dq"));
            tell(&mut page, &mut text);
        } else {
            // A blank line: what stood above it belongs to no key.
            tell(&mut page, &mut text);
        }
    }
    tell(&mut page, &mut text);
    page
}

fn tell(page: &mut String, text: &mut Vec<&str>) {
    for line in text.drain(..) {
        let _ = match line {
            "" => writeln!(page, ".PP"),
            line => writeln!(page, "{}", escaped(line)),
        };
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text).replace('"', "\\(dq"))
}

/// Text as roff has it (groff(7)): a backslash begins an escape, a line that begins with a dot or a quote a request.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_its_default_and_what_it_means() {
        let made = body(
            "# About the file.\n\n# More keys.\n#threads = 0\n\n[tls]\n# A 'chain'.\n# .pem\n#key = \"\" # end\n[a]\n#x = [\"users\", 100]\n",
        );
        let expected = "About the file.\n.TP\n.BR threads \" = 0\"\nMore keys.\n.SH \"[tls]\"\n.TP\n\
             .BR key \" = \\(dq\\(dq\"\nA 'chain'.\n\\&.pem\n.SH \"[a]\"\n.TP\n.BR x \" = [\\(dqusers\\(dq, 100]\"\n";
        assert_eq!(made, expected);
    }

    #[test]
    fn every_key_of_the_shipped_file_is_on_the_page() {
        let page = page();
        let keys = SHIPPED.lines().filter_map(|line| {
            let line = line.strip_prefix('#').unwrap_or(line);
            line.split_once(" = ").map(|(key, _)| key).filter(|key| !key.contains(' '))
        });
        let mut number = 0;
        for key in keys {
            number += 1;
            assert!(page.contains(&format!("\n.BR {} ", escaped(key))), "{key}");
        }
        assert!(number > 10);
    }
}
