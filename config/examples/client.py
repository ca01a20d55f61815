"""client.py SPOOL SONG FOLDER SECONDS OPTIONS, such as: client.py ~/demixd Song.flac stems 600 '{"format": "mp3"}'"""
import hashlib, io, json, math, shutil, sys, time
from pathlib import Path

if len(sys.argv) != 6: sys.exit(__doc__)
spool, song, folder, seconds, options = *map(Path, sys.argv[1:4]), float(sys.argv[4]), sys.argv[5]
inbox, sidecar = spool / "inbox", spool / "status" / f"{song.name}.json"

def read(path):
    return json.loads(path.read_bytes()) if path.exists() else {}
def follow(until):
    seq, heard = None, time.monotonic()
    while time.monotonic() < until:
        job, daemon = read(sidecar), read(spool / "status" / "_daemon.json")
        if job.get("job_id") not in (older, None) and job["state"] in ("done", "failed", "cancelled"):
            return job
        if daemon.get("seq") != seq:
            seq, heard = daemon.get("seq"), time.monotonic()
        if time.monotonic() > heard + 3 * daemon.get("interval_s", 5):
            sys.exit("The daemon is not running. The song stays in the inbox until it is.")
        time.sleep(0.5)
    raise TimeoutError

for path in (inbox, sidecar.parent, song): path.exists() or sys.exit(f"{path} is not there")
older = read(sidecar).get("job_id")  # that of an earlier drop of this name
for name, data in ((f"{song.name}.job.json", io.BytesIO(options.encode())), (song.name, song.open("rb"))):
    (part := inbox / f".{name}.part").unlink(missing_ok=True)
    with part.open("xb") as file: shutil.copyfileobj(data, file)  # made new: through no link of others
    part.rename(inbox / name)
try: job = follow(time.monotonic() + seconds)
except (KeyboardInterrupt, TimeoutError):
    (inbox / f"{song.name}.cancel").touch()
    job = follow(math.inf)
if job["state"] != "done": sys.exit(f"{job['state']}: {job['message']}")
if not (result := spool / "outbox" / job["output"]["dir"]).is_dir(): sys.exit(f"{result} is not there: see [paths] outbox")
shutil.copytree(result, folder, dirs_exist_ok=True)
for file in read(folder / "stems.json")["files"]:
    if hashlib.sha256((folder / file["name"]).read_bytes()).hexdigest() != file["sha256"]:
        sys.exit(f"{file['name']} is not what it should be")
