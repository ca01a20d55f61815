# client.sh SPOOL SONG FOLDER SECONDS OPTIONS, such as: sh client.sh ~/demixd Song.flac stems 600 '{"format": "mp3"}'
[ $# -eq 5 ] || { head -n 1 "$0" >&2; exit 1; }
spool=$1 song=$2 folder=$3 seconds=$4 options=$5
name=${song##*/} inbox=$spool/inbox daemon=$spool/status/_daemon.json
sidecar=$spool/status/$name.json

# The first value of a key: quotes within a text are escaped, and the job's own fields come before all others of that name.
value() { grep -oE "\"$2\":(\"[^\"]*\"|[0-9]+)" "$1" 2>/dev/null | head -n 1 | sed 's/^[^:]*://; s/"//g'; }

# The file is made new (-C): through no link that others put there.
drop() { rm -f "$inbox/.$1.part" && (set -C && cat >"$inbox/.$1.part") && mv "$inbox/.$1.part" "$inbox/$1"; }

for path in "$inbox" "${daemon%/*}" "$song"; do [ -e "$path" ] || { echo "$path is not there" >&2; exit 1; }; done
older=$(value "$sidecar" job_id) # that of an earlier drop of this name
printf %s "$options" | drop "$name.job.json" && drop "$name" <"$song" || exit 1
trap 'touch "$inbox/$name.cancel"' INT TERM
waited=0 silent=0 seq=
while :; do
    job=$(value "$sidecar" job_id)
    state=$(value "$sidecar" state)
    case $state in done | failed | cancelled) [ "$job" = "$older" ] || break ;; esac
    sleep 1
    waited=$((waited + 1)) silent=$((silent + 1))
    [ "$waited" -ne "$seconds" ] || touch "$inbox/$name.cancel"
    beat=$(value "$daemon" seq) interval=$(value "$daemon" interval_s)
    [ "$beat" = "$seq" ] || silent=0
    seq=$beat
    if [ "$silent" -gt $((3 * ${interval:-5} + 3)) ]; then
        echo "The daemon is not running. The song stays in the inbox until it is." >&2
        exit 1
    fi
done
code=$(value "$sidecar" code) # a song that was cancelled has none
[ "$state" = "done" ] || { echo "$state${code:+: $code}" >&2; exit 1; }
result=$spool/outbox/$(value "$sidecar" dir)
[ -d "$result" ] || { echo "$result is not there: see [paths] outbox" >&2; exit 1; }
mkdir -p "$folder" && cp -R "$result/." "$folder" && cd "$folder" || exit 1
grep -oE '"name":"[^"]*"[^}]*"sha256":"[0-9a-f]*"' stems.json |
    sed 's/"name":"\([^"]*\)".*"sha256":"\(.*\)"/\2  \1/' | sha256sum -c --quiet
