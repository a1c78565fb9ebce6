-- One row where the fence and the seq still fit; a cancellation names no fence.
select 1 from orders
where order_id = :order_id and seq = :expected_seq
    and (:held_fence is null or (fence = :held_fence and worker is not null))
