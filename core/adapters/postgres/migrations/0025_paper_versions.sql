-- Paper books are changed without being locked beforehand: who keeps one names the version it was made from.

alter table paper_books
    add column version bigint not null default 1,
    add column symbols text[] not null default '{}';
comment on column paper_books.symbols is 'of its orders and positions: their quotes are asked for all at once';

update paper_books set symbols = array(
    select o ->> 'symbol' from jsonb_path_query(book, '$.orders[*]') as orders (o)
    union select p ->> 'symbol' from jsonb_path_query(book, '$.positions[*]') as positions (p)
) where book is not null;

-- What became of one order, whatever else the account has done.
create index paper_deals_of_order on paper_deals (tenant, account, (deal ->> 'order'));
create index paper_orders_ended_by_ticket on paper_orders_ended (tenant, account, (ended ->> 'ticket'));
