#!/bin/sh
# What survives a reboot, an upgrade and a reset: applies the rules of persist.conf.
#
#   state.sh IMAGE DATA ID
#
# IMAGE is the root of the image that boots, DATA the data partition, which will be
# /var, and ID names the image (its root hash). Nothing here mounts anything: plain
# directories will do. Every step can be cut short by a power failure and is done
# again by the next boot, until ID stands in the file that is written last.
set -eu
umask 022

image=$1
data=$2
id=$3
own=$data/lib/kairos
rules=$image/usr/lib/kairos/persist.conf
mark=$own/os/applied # the image whose rules were applied last

# place PATH prints where PATH of the machine lies on the data partition.
place() {
	case $1 in
	/var/*) echo "$data${1#/var}" ;;
	/etc/*) echo "$own/etc${1#/etc}" ;;
	*)
		while read -r word path target _; do
			[ "$word" = bind ] || continue
			case $1 in "$path" | "$path"/*) echo "$data${target#/var}${1#"$path"}" ;; esac
		done <"$rules"
		;;
	esac
}

there() { [ -e "$1" ] || [ -L "$1" ]; }

# wipe DIR removes what is in DIR, but for the paths in $kept, one a line, which
# may be patterns.
wipe() {
	for entry in "$1"/* "$1"/.[!.]* "$1"/..?*; do
		there "$entry" || continue
		case $(holds "$entry") in
		itself) ;;
		below) wipe "$entry" ;;
		*) rm -rf "$entry" ;;
		esac
	done
}

# holds PATH prints whether one of $kept is PATH or something below it.
holds() {
	answer=
	while read -r pattern; do
		# shellcheck disable=SC2254 # patterns are meant
		case $1 in $pattern) echo itself && return ;; esac
		case $pattern in "$1"/*) answer=below ;; esac
	done <<-END
		$kept
	END
	echo "$answer"
}

# reset deletes the data of the machine. The request goes last.
reset() {
	kept=$own/reset
	kept="$kept
$(place /oem)"
	if [ "$(cat "$own/reset")" = "reset keep-identity" ]; then
		while read -r word path _; do
			[ "$word" = identity ] || continue
			kept="$kept
$(place "$path")"
		done <"$rules"
	fi
	wipe "$data"
	sync
	rm "$own/reset"
	sync
}

# rule PATH prints keep or image.
rule() {
	longest=
	answer=keep
	while read -r word path _; do
		case $word in keep | image) ;; *) continue ;; esac
		# shellcheck disable=SC2254 # patterns are meant
		case $1 in
		$path | $path/*) [ ${#path} -lt ${#longest} ] || { longest=$path && answer=$word; } ;;
		esac
	done <"$rules"
	echo "$answer"
}

# drop PATH removes from the data partition what is the image's of PATH.
drop() {
	for entry in $(place "$1"); do
		there "$entry" || continue
		real=${1%/*}/${entry##*/}
		if [ "$(rule "$real")" = image ]; then
			if grep -q "^keep *$real/" "$rules"; then
				drop "$real/*"
			else
				rm -rf "$entry"
			fi
		fi
	done
}

# merge PATH N rewrites a table of accounts that the machine has changed: fields
# up to N, which are the numbers that files belong to, as the image has them.
merge() {
	changed=$(place "$1")
	[ -f "$changed" ] || return 0
	cp -p "$changed" "$changed.kairos-new"
	{
		while IFS= read -r line; do
			other=$(grep "^${line%%:*}:" "$changed") || other=$line
			for field in 1 2 3 4; do
				[ "$field" -le "$2" ] || break
				printf '%s:' "${line%%:*}"
				line=${line#*:}
				other=${other#*:}
			done
			printf '%s\n' "$other"
		done <"$image$1"
		while IFS= read -r line; do
			grep -q "^${line%%:*}:" "$image$1" || printf '%s\n' "$line"
		done <"$changed"
	} >"$changed.kairos-new"
	sync
	mv "$changed.kairos-new" "$changed"
}

# stage FROM TO copies the directory FROM of the image to where seed takes it.
# seed FROM TO moves what TO lacks of FROM, so that a name is there with all of
# its content or not at all.
stage() {
	mkdir -p "${2%/*}"
	[ ! -d "$1" ] || cp -a "$1" "$2"
}

seed() {
	for entry in "$1"/* "$1"/.[!.]* "$1"/..?*; do
		there "$entry" || continue
		if ! there "$2/${entry##*/}"; then
			mv "$entry" "$2/"
		elif [ -d "$entry" ] && [ ! -L "$entry" ] && [ -d "$2/${entry##*/}" ]; then
			seed "$entry" "$2/${entry##*/}"
		fi
	done
}

# apply makes the data partition what this image wants to find.
apply() {
	while read -r word path fields; do
		case $word in
		image) drop "$path" ;;
		merge) merge "$path" "$fields" ;;
		esac
	done <"$rules"
	new=$data/.kairos-new
	rm -rf "$new"
	stage "$image/var" "$new"
	while read -r word path target _; do
		[ "$word" = bind ] || continue
		rm -rf "$new${target#/var}"
		stage "$image$path" "$new${target#/var}"
	done <"$rules"
	sync
	seed "$new" "$data"
	rm -rf "$new"
	mkdir -p "$own/etc" "$own/etc.work"
	mkdir -p -m 0700 "$own/os"
	echo "$id" >"$mark.new"
	sync
	mv "$mark.new" "$mark"
	sync
}

[ ! -e "$own/reset" ] || reset
[ "$(cat "$mark" 2>/dev/null)" = "$id" ] || apply
