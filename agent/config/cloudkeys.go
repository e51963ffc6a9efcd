package config

// cloudKeys are the top-level keys of cloud-init's modules
// (https://cloudinit.readthedocs.io/en/latest/reference/modules.html), with _ for -.
var cloudKeys = []string{
	"allow_public_ssh_keys", "ansible", "apk_repos", "apt", "apt_pipelining", "apt_reboot_if_required", "apt_update",
	"apt_upgrade", "authkey_hash", "bootcmd", "byobu_by_default", "ca_certs", "chef", "chpasswd", "create_hostname_file",
	"datasource", "datasource_list", "device_aliases", "disable_ec2_metadata", "disable_root", "disable_root_opts",
	"disk_setup", "drivers", "fan", "final_message", "fqdn", "fs_setup", "groups", "growpart", "hostname", "keyboard",
	"landscape", "locale", "locale_configfile", "lxd", "manage_etc_hosts", "manage_resolv_conf", "mcollective",
	"merge_how", "merge_type", "mount_default_fields", "mounts", "network", "no_ssh_fingerprints", "ntp", "output",
	"package_reboot_if_required", "package_update", "package_upgrade", "packages", "password", "phone_home",
	"power_state", "prefer_fqdn_over_hostname", "preserve_hostname", "puppet", "random_seed", "reporting",
	"resize_rootfs", "resolv_conf", "rh_subscription", "rpi", "rsyslog", "runcmd", "salt_minion", "snap", "spacewalk",
	"ssh", "ssh_authorized_keys", "ssh_deletekeys", "ssh_fp_console_blacklist", "ssh_genkeytypes", "ssh_import_id",
	"ssh_key_console_blacklist", "ssh_keys", "ssh_publish_hostkeys", "ssh_pwauth", "ssh_quiet_keygen", "swap",
	"system_info", "timezone", "ubuntu_advantage", "ubuntu_pro", "updates", "user", "users", "vendor_data",
	"wireguard", "write_files", "yum_repo_dir", "yum_repos", "zypper",
}

// userKeys are those of one of the users, of the same reference.
var userKeys = []string{
	"create_groups", "doas", "expiredate", "gecos", "groups", "hashed_passwd", "homedir", "inactive", "lock_passwd",
	"name", "no_create_home", "no_log_init", "no_user_group", "passwd", "plain_text_passwd", "primary_group",
	"selinux_user", "shell", "snapuser", "ssh_authorized_keys", "ssh_import_id", "ssh_redirect_user", "sudo", "system",
	"uid", "uuid",
}
