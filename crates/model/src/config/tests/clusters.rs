use super::*;

#[test]
fn clusters_and_what_is_started() {
    let text = "[workspace]\napps = \"apps\"\nown_apps = 1\nroots = [\"/home\", \"home\", \"/a/../b\", \"/a/\"]\n[[cluster]]\n[[cluster]]\nname = \"A\"\n[[cluster]]\nname = \"a\"\n\
                [[cluster]]\nname = \"a\"\ncommands = \"bin\"\nconf = \"x\"\n[[cluster]]\nname = \"b\"\nslurm_conf = \"x\"\n";
    let said: Vec<String> = parse(text, "f").unwrap_err().iter().map(ToString::to_string).collect();
    let expected = [
        "f:2: workspace.apps: this is no absolute path",
        "f:3: workspace.own_apps: an integer where true or false belongs",
        "f:4: workspace.roots: this is no absolute path without . and .. and a slash at its end",
        "f:4: workspace.roots: this is no absolute path without . and .. and a slash at its end",
        "f:4: workspace.roots: this is no absolute path without . and .. and a slash at its end",
        "f:5: cluster.name: \"\" is no cluster's name",
        "f:7: cluster.name: \"A\" is no cluster's name",
        "f:11: cluster.name: there is another cluster \"a\"",
        "f:13: cluster.conf: there is no such key",
        "f:16: cluster.slurm_conf: this is no absolute path",
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.starts_with(expected), "{said}\n{expected}");
    }
}

#[test]
fn a_file_with_an_address_is_a_clusters() {
    for (text, for_cluster, found) in [
        ("", false, 0),
        ("threads = 65", false, 1),
        ("[portal]\nnames = ['p']", false, 0),
        ("[portal]\nurl = 'https://p'", true, 1),
        ("threads = 65\n[portal]\nurl = 'http://p'", true, 3),
    ] {
        let review = review(text, "-", false);
        assert_eq!((review.for_cluster, review.problems.len()), (for_cluster, found), "{text}");
    }
    // What was refused does not hide the rest.
    let review = review("threads = 65\n[portal]\nurl = 'https://p'", "-", false);
    assert_eq!((review.config.threads, review.config.portal.url.as_deref()), (0, Some("https://p")));
}
