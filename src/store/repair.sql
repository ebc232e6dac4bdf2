begin;
set local statement_timeout = 0;

-- Moves the sequence if it is behind the ids in the table. The table lock below conflicts with the lock
-- under which inserts take their ids, so no id is taken between the look at the table and the move.
do $$
declare
  sequence text := pg_get_serial_sequence('tasks', 'id');
  next_id bigint;
  highest_id bigint;
begin
  -- A role that may only read and write rows cannot move the sequence.
  if sequence is null or not has_sequence_privilege(sequence, 'update')
    or not has_sequence_privilege(sequence, 'select') then
    return;
  end if;
  execute format('select last_value + is_called::int from %s', sequence) into next_id;
  select max(id) into highest_id from tasks;
  if highest_id >= next_id then
    lock table tasks in share row exclusive mode;
    execute format('select last_value + is_called::int from %s', sequence) into next_id;
    select greatest(max(id) + 1, next_id) into next_id from tasks;
    perform setval(sequence, next_id, false);
  end if;
end
$$;

-- Moves instants that RFC 3339 cannot write to the nearest instant that it can. The upper end leaves room
-- for later changes, because each change has a later updated_at than the one before.
do $$
declare
  task record;
begin
  for task in select user_id, id from tasks
    where least(created_at, updated_at) < '0001-01-01 00:00:00+00'
      or greatest(created_at, updated_at) > '9999-12-30 00:00:00+00'
  loop
    begin
      update tasks set
        created_at = greatest('0001-01-01 00:00:00+00', least(created_at, '9999-12-30 00:00:00+00')),
        updated_at = greatest('0001-01-01 00:00:00+00', least(updated_at, '9999-12-30 00:00:00+00'))
        where user_id = task.user_id and id = task.id;
    exception when check_violation then
      -- The row breaks another constraint too. `tinytasks check` names it.
      null;
    end;
  end loop;
end
$$;

commit;
