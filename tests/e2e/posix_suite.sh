# The POSIX suites of others: pjdfstest and fsx. They are built at the first time.
source "$PROJECT/tests/e2e/lib.sh"
[ "$(id -u)" = 0 ] || { echo "pjdfstest changes users: needs root"; exit 77; }
"$PROJECT/scripts/posix-suite" ${FULL:+--full}
