-- Orders that had ended here turn up at their venue.
alter table breaks drop constraint breaks_sort_check;
alter table breaks add constraint breaks_sort_check check (sort in ('missing', 'external', 'quantity', 'resurfaced'));
