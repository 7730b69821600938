# fio writes at random offsets with several engines and verifies what it reads back.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
verify() { fio --directory="$mount" --verify=crc32c --verify_fatal=1 --do_verify=1 --minimal --output=/dev/null "$@"; }
verify --name=psync --rw=randwrite --bs=4k --size=24m --numjobs=3 --ioengine=psync --end_fsync=1
verify --name=mixed --rw=randwrite --bsrange=1k-300k --bs_unaligned=1 --size=48m --numjobs=2 --ioengine=psync --end_fsync=1
verify --name=mmap --rw=randwrite --bs=4k --size=16m --ioengine=mmap
verify --name=direct --rw=randwrite --bs=16k --size=32m --ioengine=libaio --iodepth=16 --direct=1
verify --name=stream --rw=write --bs=1m --size=256m --ioengine=psync --end_fsync=1
