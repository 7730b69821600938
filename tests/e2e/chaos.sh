# Two minutes of chaos on real processes, always with the same seed; scripts/chaos --minutes 10 is the long form.
CAIRN_BIN=$CAIRN exec "$PROJECT/scripts/chaos" --minutes "${MINUTES:-2}" --seed "${SEED:-1}" --data "$WORK/chaos"
