with redeemed as (
    delete from tickets where digest = $1 returning *
)
select r.key_id, r.account, r.scopes
from redeemed r
left join api_keys k on k.key_id = r.key_id
where r.expires_at_ms > now_ms()
    and k.revoked_at_ms is null and (k.expires_at_ms is null or k.expires_at_ms > now_ms())
