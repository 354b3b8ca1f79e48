-- A submission counts what was filled since the venue was last looked at: it must not read all that ever was.
create index orders_filled_lately on orders (tenant, account, updated_at) where state = 'FILLED';
