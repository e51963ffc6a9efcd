#!/bin/sh
# room.sh SECTORS: prints a note where a data partition of so many sectors of 512 bytes
# is small for Kubernetes. Without a pod it takes 300 MiB, and the kubelet removes images
# and pods when a tenth of the file system is left.
set -eu
least=4096
mib=$(($1 / 2048))
[ "$mib" -ge "$least" ] ||
	echo "the disk leaves $mib MiB for data, which is little for Kubernetes: $least MiB and more let images and pods run"
