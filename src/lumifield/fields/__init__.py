"""Fields: functions of a point in space that have parameters."""
