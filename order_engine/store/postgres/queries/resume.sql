with resumed as (
    delete from pauses where account = $1 returning account
)
insert into audit (key_id, address, action, subject, details)
select $2, $3, 'resume', account, '{}' from resumed
returning subject
