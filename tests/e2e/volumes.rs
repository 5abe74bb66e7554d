//! Volumes on this machine, which is the cluster's one node.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::cluster::{Bed, run};

/// A claim with a folder behind it. The folder goes with it.
pub struct Volume {
    folder: tempfile::TempDir,
    name: String,
    disk: bool,
}

impl Volume {
    /// As large as this machine's disk.
    pub fn new(bed: &Bed, claim: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("perennial-e2e-").tempdir();
        let volume = Self {
            folder: folder.expect("a folder can be made"),
            name: format!("{}-{claim}", bed.namespace),
            disk: false,
        };
        volume.belongs_to_pods();
        volume.offer(bed, claim);
        volume
    }

    /// A disk of its own, of so many KiB.
    pub fn small(bed: &Bed, claim: &str, kilobytes: u32) -> Self {
        let mut volume = Self::new(bed, claim);
        let size = format!("size={kilobytes}k");
        tool(
            "mount",
            &["-t", "tmpfs", "-o", &size, "tmpfs", &volume.path().to_string_lossy()],
        );
        volume.disk = true;
        volume.belongs_to_pods();
        volume
    }

    /// Makes the disk larger.
    pub fn grow(&self, kilobytes: u32) {
        let options = format!("remount,size={kilobytes}k");
        tool("mount", &["-o", &options, &self.path().to_string_lossy()]);
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn belongs_to_pods(&self) {
        tool("chown", &["65532:65532", &self.path().to_string_lossy()]);
    }

    fn offer(&self, bed: &Bed, claim: &str) {
        let (name, namespace, folder) = (&self.name, &bed.namespace, self.path().display());
        let manifest = format!(
            r#"{{"apiVersion": "v1", "kind": "List", "items": [
              {{"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {{"name": "{name}"}}, "spec": {{
                "capacity": {{"storage": "1Gi"}}, "accessModes": ["ReadWriteMany"], "storageClassName": "",
                "claimRef": {{"namespace": "{namespace}", "name": "{claim}"}}, "hostPath": {{"path": "{folder}"}}}}}},
              {{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {{"name": "{claim}", "namespace": "{namespace}"}},
                "spec": {{"accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": "{name}",
                "resources": {{"requests": {{"storage": "1Gi"}}}}}}}}]}}"#
        );
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        std::io::Write::write_all(&mut file, manifest.as_bytes()).expect("it can be written");
        let path: PathBuf = file.path().into();
        run("kubectl", &["apply", "-f", &path.to_string_lossy()]).unwrap_or_else(|error| panic!("{error}"));
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // A panic while another is under way would end the whole run.
        if self.disk {
            let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
        }
        let _ = run("kubectl", &["delete", "persistentvolume", &self.name, "--wait=false"]);
    }
}

fn tool(program: &str, arguments: &[&str]) {
    let status = Command::new(program)
        .args(arguments)
        .status()
        .expect("it can be started");
    assert!(status.success(), "{program} {arguments:?}");
}
